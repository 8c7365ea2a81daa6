from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluators import command_line
from evaluators.benchmarks.jsonl import jsonl
from evaluators.commands import run
from evaluators.commands.checkpoints import answers
from evaluators.errors import ConfigError, RunError
from evaluators.running.settings import parse
from evaluators.saying import say


@dataclass(frozen=True)
class PairsCommand:
    """Let two checkpoints answer the same prompts, and judge the answers: response 1 is of --a, response 2 of --b.

    All flags of `depthlab judge run` but --data hold too, --judge among them. The answers go to OUT/pairs.jsonl, the
    verdicts to OUT/verdicts; the same command goes on where it stopped.
    """

    a: str
    """Checkpoint: a folder with config.json and weights."""
    b: str
    """The other checkpoint."""
    prompts: str
    """JSON Lines with a field `query` (and id, family, reference if you like)."""
    out: str
    """Folder of the results."""
    max_new_tokens: int = 128
    """Longest answer, in tokens."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"--max-new-tokens {self.max_new_tokens}: must be at least 1")


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge pairs`. Raises UserError as `judge run`, and where the prompts or a checkpoint cannot be read."""
    wanted, rest = command_line.read_known(PairsCommand, argv, prog=prog)
    out = Path(wanted.out)
    data = out / "pairs.jsonl"
    if any(word.split("=")[0] == "--data" for word in rest):
        raise ConfigError("--data: the pairs are made here, from --prompts")
    flags = [*rest, "--data", str(data), "--out", str(out / "verdicts")]
    if not any(word.split("=")[0] == "--judge" for word in rest):
        raise ConfigError("--judge: name a judge, such as openai:gpt-4o-mini")
    parse(flags, prog=prog)  # wrong flags are told before anything is generated
    _generate(wanted, out, data)
    return run.main(flags, prog=prog)


def _generate(wanted: PairsCommand, out: Path, data: Path) -> None:
    made = out / "pairs.json"
    settings = json.dumps(asdict(wanted), indent=2) + "\n"
    if data.exists():
        if not made.exists() or made.read_text(encoding="utf-8") != settings:
            raise RunError(f"--out {out}: holds pairs of other settings; name another folder")
        return
    prompts = []
    for number, found in jsonl(Path(wanted.prompts)):
        if isinstance(found, RunError) or not isinstance(found.get("query"), str) or not found["query"].strip():
            reason = found if isinstance(found, RunError) else "has no text in the field 'query'"
            raise RunError(f"--prompts {wanted.prompts}: line {number}: {reason}")
        prompts.append(dict(found))
    if not prompts:
        raise RunError(f"--prompts {wanted.prompts}: holds no prompt")
    queries = [prompt["query"] for prompt in prompts]
    above = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise RunError(f"--out {out}: {above} is no folder that can be written; name another place")
    sides = (("response1", "--a", wanted.a), ("response2", "--b", wanted.b))
    for name, flag, checkpoint in sides:
        said = answers(Path(checkpoint), queries, max_new_tokens=wanted.max_new_tokens, flag=flag)
        for prompt, answer in zip(prompts, said, strict=True):
            prompt[name] = answer
            prompt[name.replace("response", "system")] = checkpoint
        say(f"answers     {len(prompts):,} of {checkpoint}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    made.write_text(settings, encoding="utf-8")
    part = data.with_suffix(".part")
    part.write_text("".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts), encoding="utf-8")
    os.replace(part, data)
