from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import jsonl
from evaluators.errors import RunError

_MODELS = ("gpt35", "vicuna-13b")
_NAMES = {"chatgpt": 1, "vicuna13b": 2, "tie": 0}
"""The three words of the file of human judgments, in capitals there."""


@benchmark("faireval")
def faireval(path: Path) -> Iterator[Line]:
    """A checkout of FairEval (arXiv:2305.17926): question.jsonl, answer/ and review/*_human.txt, a winner a line.

    Paths and the fields question_id and text are those of its FairEval.py and run.sh. The file of human judgments
    itself was not at hand; that it holds CHATGPT, VICUNA13B or TIE, a line a question in the order of question.jsonl,
    is how four public programs that read it take it, one of which refuses any other word.
    """
    if not path.is_dir():
        raise RunError(f"--data {path}: name the folder of FairEval's repository, which holds question.jsonl")
    first, second = _MODELS
    questions = list(jsonl(path / "question.jsonl"))
    answers = [_by_question(path / "answer" / f"answer_{model}.jsonl") for model in _MODELS]
    file = path / "review" / f"review_{first}_{second}_human.txt"
    try:
        winners = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"--data {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    winners = [line.strip() for line in winners if line.strip()]
    if len(winners) != len(questions):
        raise RunError(f"--data {file}: {len(winners)} judgments of {len(questions)} questions")
    for (number, found), winner in zip(questions, winners, strict=True):
        yield number, found if isinstance(found, RunError) else _named(found, answers, winner)


def _by_question(path: Path) -> dict[Any, Any]:
    lines = {}
    for number, found in jsonl(path):
        if isinstance(found, RunError):
            raise RunError(f"--data {path}: line {number}: {found}")
        lines[found.get("question_id")] = found.get("text")
    return lines


def _named(found: Mapping[str, Any], answers: list[dict[Any, Any]], winner: str) -> Mapping[str, Any] | RunError:
    number = found.get("question_id")
    if any(number not in texts for texts in answers):
        return RunError(f"question_id {number!r} has no answer in both files of answer/")
    if winner.lower() not in _NAMES:
        return RunError(f"the winner is {winner!r}; expected one of {', '.join(name.upper() for name in _NAMES)}")
    return {
        "id": f"faireval-{number}",
        "query": found.get("text"),
        "response1": answers[0][number],
        "response2": answers[1][number],
        "human": _NAMES[winner.lower()],
        "dataset": "faireval",
        "system1": _MODELS[0],
        "system2": _MODELS[1],
    }
