from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluators.benchmarks import Line, benchmark
from evaluators.benchmarks.jsonl import jsonl
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


@benchmark("llmeval2")
def llmeval2(path: Path) -> Iterator[Line]:
    """The original LLMEval² file (arXiv:2308.01862), ZIP or unpacked: no ids, and the family from the data set."""
    for number, found in jsonl(path):
        if isinstance(found, RunError):
            yield number, found
            continue
        dataset = str(found.get("dataset", "")).lower()
        if dataset not in FAMILY_OF:
            known = ", ".join(FAMILY_OF)
            yield number, RunError(f"dataset {found.get('dataset')!r} is none of LLMEval²'s: {known}")
            continue
        yield number, {"id": f"llmeval2-{number - 1:04d}", "family": FAMILY_OF[dataset], **found}
