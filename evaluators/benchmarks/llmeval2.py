from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.benchmarks import Line, benchmark, editions
from evaluators.benchmarks.jsonl import jsonl, unpacked
from evaluators.errors import RunError

FAMILY_OF = {
    "webgpt": "QA",
    "shp": "QA",
    "eli5": "QA",
    "rlhf-reward-chinese": "QA",
    "reward-aira-portuguese": "QA",
    "summeval": "SUM",
    "summarizefeedback": "SUM",
    "openmeva": "Story",
    "bagel": "DataText",
    "hellaswag": "NLI",
    "hh-rlhf": "SDia",
    "rlhf-reward-russian": "SDia",
    "mt-bench": "MDia",
    "pku-saferlhf": "SaQA",
    "code-contests": "Code",
}
"""The 15 tasks of LLMEval² -> the family of prompts that its authors use for each."""

LANGUAGE_OF = {
    **dict.fromkeys(FAMILY_OF, "English"),
    "rlhf-reward-chinese": "Chinese",
    "reward-aira-portuguese": "Portuguese",
    "rlhf-reward-russian": "Russian",
}
"""The language that a task's own data set is in."""

_SCRIPT_OF = {"English": "LATIN", "Portuguese": "LATIN", "Chinese": "CJK", "Russian": "CYRILLIC"}

PUBLISHED = "8c43445cb56f02f2d0105e05db171ea3469fe32abe34718b7ceb80bb6c7c664d"
"""SHA-256 of the authors' LLMEval2_benchmark.json: 2,553 lines."""


@benchmark("llmeval2")
def llmeval2(path: Path) -> Iterator[Line]:
    """The original LLMEval² file (arXiv:2308.01862), ZIP or unpacked: no ids, and the family from the data set.

    The query of its mt-bench lines is empty: each response is a whole dialogue.
    """
    for number, found in jsonl(path):
        if isinstance(found, RunError):
            yield number, found
            continue
        dataset = str(found.get("dataset", "")).lower()
        if dataset not in FAMILY_OF:
            known = ", ".join(FAMILY_OF)
            yield number, RunError(f"dataset {found.get('dataset')!r} is none of LLMEval²'s: {known}")
            continue
        own = {"id": f"llmeval2-{number - 1:04d}", "family": FAMILY_OF[dataset], "language": _language(dataset, found)}
        yield number, {**own, **found}


def _edition(path: Path) -> str:
    with unpacked(path) as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found == PUBLISHED:
        return "LLMEval² as its authors published it"
    return f"another version than the published LLMEval² (SHA-256 {found[:12]}..., published {PUBLISHED[:12]}...)"


editions["llmeval2"] = _edition


def _language(dataset: str, found: Mapping[str, Any]) -> str:
    """The data set's, if the text is in its script; "unknown" otherwise.

    The text is the query, or both responses where it is blank. Chinese and Russian texts quote Latin names, so one
    letter of their own script is enough; in the others, at least half of the letters must be Latin.
    """
    query = str(found.get("query", ""))
    text = query if query.strip() else f"{found.get('response1', '')}{found.get('response2', '')}"
    scripts = [unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha()]
    language = LANGUAGE_OF[dataset]
    own = scripts.count(_SCRIPT_OF[language])
    enough = 2 * own >= len(scripts) if _SCRIPT_OF[language] == "LATIN" else own > 0
    return language if enough and scripts else "unknown"
