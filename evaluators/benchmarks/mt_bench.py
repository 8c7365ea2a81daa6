from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import array_or_lines
from evaluators.errors import RunError
from evaluators.samples import label

_FIELDS = ("question_id", "model_a", "model_b", "winner", "turn", "conversation_a", "conversation_b")


@benchmark("mt-bench")
def mt_bench(path: Path) -> Iterator[Line]:
    """MT-bench human judgments (arXiv:2306.05685), as JSON Lines or an array: one line a person's vote.

    Both conversations ask the same; what is compared are the assistants' turns, up to the turn that was judged.
    """
    for number, found in array_or_lines(path):
        yield number, found if isinstance(found, RunError) else _named(number, found)


def _named(number: int, found: Mapping[str, Any]) -> Mapping[str, Any] | RunError:
    if missing := [name for name in _FIELDS if name not in found]:
        return RunError(f"has no field {missing[0]!r}, which MT-bench's judgments have")
    turn = found["turn"]
    try:
        human = label(found["winner"], "winner")
        questions = _said(found["conversation_a"], "user", turn)
        responses = [_said(found[name], "assistant", turn) for name in ("conversation_a", "conversation_b")]
    except RunError as error:
        return error
    except (TypeError, KeyError, IndexError):
        return RunError(f"its conversations do not hold {turn!r} turns of user and assistant with role and content")
    return {
        "id": f"mt-bench-{number - 1:05d}",
        "query": _joined(questions, "Question"),
        "response1": _joined(responses[0], "Answer"),
        "response2": _joined(responses[1], "Answer"),
        "human": human,
        "dataset": "mt-bench",
        "system1": found["model_a"],
        "system2": found["model_b"],
        "family": "QA" if turn == 1 else "MDia",
    }


def _said(conversation: Sequence[Mapping[str, str]], role: str, turns: int) -> list[str]:
    said = [message["content"] for message in conversation if message["role"] == role]
    return [said[turn] for turn in range(turns)]


def _joined(texts: Sequence[str], name: str) -> str:
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"{name} {number}:\n{text}" for number, text in enumerate(texts, start=1))
