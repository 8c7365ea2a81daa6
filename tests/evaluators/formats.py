"""A small valid file of every registered data format, and the same file with its second sample spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How a benchmark's samples stand in its file."""

    rows: Sequence[Row]
    """Valid samples."""
    write: Callable[[Path, Sequence[Row]], Path]
    """Write samples into an empty folder; returns what --data names."""
    spoil: Mapping[str, Any]
    """What makes a sample bad."""
    reason: str
    """What is then said of it, after its number."""


def lines(folder: Path, rows: Sequence[Row]) -> Path:
    """JSON Lines."""
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def array(folder: Path, rows: Sequence[Row]) -> Path:
    """One JSON array."""
    path = folder / "data.json"
    path.write_text(json.dumps(rows, indent=4))
    return path


def faireval_folder(folder: Path, rows: Sequence[Row]) -> Path:
    """As the repository lies on the disk: questions, answers of each system, judgments of people."""
    for name in ("answer", "review"):
        (folder / name).mkdir()
    questions = [{"question_id": row["question_id"], "text": row["text"], "category": "generic"} for row in rows]
    files = {
        "question.jsonl": questions,
        "answer/answer_gpt35.jsonl": [
            {"question_id": row["question_id"], "text": f"g {row['text']}", "answer_id": "x"} for row in rows
        ],
        "answer/answer_vicuna-13b.jsonl": [
            {"question_id": row["question_id"], "text": f"v {row['text']}", "answer_id": "y"} for row in rows
        ],
    }
    for name, content in files.items():
        (folder / name).write_text("\n".join(map(json.dumps, content)))
    (folder / "review" / "review_gpt35_vicuna-13b_human.txt").write_text("\n".join(row["winner"] for row in rows))
    return folder


def saved_set(folder: Path, rows: Sequence[Row]) -> Path:
    """A data set of the `datasets` library on the disk."""
    datasets.Dataset.from_list(list(rows)).save_to_disk(str(folder / "set"))
    return folder / "set"


def talk(name: str, turns: int = 2) -> list[dict[str, str]]:
    """A conversation of MT-bench: the questions are everyone's, the answers the system's."""
    return [
        {"role": role, "content": f"{role} {turn} {name if role == 'assistant' else ''}".strip()}
        for turn in range(1, turns + 1)
        for role in ("user", "assistant")
    ]


PLAIN = {"query": "q", "response1": "x", "response2": "y"}
MT_BENCH = {
    "question_id": 81,
    "model_a": "alpaca-13b",
    "model_b": "gpt-3.5-turbo",
    "judge": "expert_0",
    "turn": 1,
    "conversation_a": talk("m"),
    "conversation_b": talk("n"),
}
PANDALM = {
    "idx": 0,
    "motivation_app": "Grammarly",
    "cmp_key": "bloom-7b_llama-7b",
    "instruction": "Add.",
    "input": "1+1",
    "response1": "2",
    "response2": "3",
}
LLMBAR = {"input": "Why?", "output_1": "so", "output_2": "thus", "label": 1}

FORMATS: dict[str, Format] = {
    "jsonl": Format(
        [PLAIN | {"human": human} for human in (1, 2, 0)], lines, {"human": 3}, "human is 3, which is no known label"
    ),
    "hf": Format(
        [PLAIN | {"human": human} for human in ("model1", "model2", "tie")],
        saved_set,
        {"human": "model3"},
        "human is 'model3', which is no known label",
    ),
    "llmeval2": Format(
        [PLAIN | {"dataset": "webgpt", "human": human} for human in ("model1", 2, "tie")],
        lines,
        {"dataset": "nowhere"},
        "dataset 'nowhere' is none of LLMEval²'s",
    ),
    "faireval": Format(
        [
            {"question_id": number, "text": f"question {number}", "winner": winner}
            for number, winner in enumerate(("CHATGPT", "VICUNA13B", "TIE"), start=1)
        ],
        faireval_folder,
        {"winner": "BARD"},
        "the winner is 'BARD'; expected one of CHATGPT, VICUNA13B, TIE",
    ),
    "mt-bench": Format(
        [
            MT_BENCH | {"winner": "model_a"},
            MT_BENCH | {"winner": "model_b"},
            MT_BENCH | {"turn": 2, "winner": "tie (inconsistent)"},
        ],
        lines,
        {"winner": "me"},
        "winner is 'me', which is no known label",
    ),
    "llmbar": Format([LLMBAR, LLMBAR | {"label": 2}], array, {"label": 9}, "human is 9, which is no known label"),
    "pandalm": Format(
        [
            PANDALM | dict(zip(("annotator1", "annotator2", "annotator3"), votes, strict=True))
            for votes in ((1, 1, 2), (2, 2, 2), (0, 2, 0))
        ],
        array,
        {"annotator2": "maybe"},
        "annotator2 is 'maybe', which is no known label",
    ),
}
"""A new benchmark needs an entry here."""
