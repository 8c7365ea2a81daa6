"""The folder of a run: config.yaml, environment.json, metrics.jsonl, tokenizer/, checkpoints/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.config.read import dump
from lab.config.sections import RunConfig
from lab.errors import RunError
from lab.modes import check_place
from lab.runfolder.history import history
from lab.runfolder.writer import is_empty

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
TOKENIZER = "tokenizer"
DIAGNOSTICS = "diagnostics"

_PACKAGES = (
    "depthlab",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "deepspeed",
    "tokenizers",
    "numpy",
)


def refuse_existing(folder: Path) -> None:
    """A run folder with anything in it is never overwritten.

    Raises:
        RunError: it exists, or cannot be made.
    """
    check_place("--run-dir", folder)
    if folder.exists() and not is_empty(folder):
        go_on = ", or go on with --resume latest" if (folder / CONFIG).is_file() else ""
        raise RunError(f"--run-dir {folder}: exists already and is never overwritten; choose another folder{go_on}")


def create(
    run: RunConfig,
    *,
    derived: dict[str, Any],
    data: dict[str, Any],
    world_size: int,
    session: dict[str, Any] | None,
) -> None:
    """Write the config and the environment of a run that starts; of one that goes on, add the environment it goes on
    in to `resumed`.

    Args:
        run: what is stored as config.yaml.
        session: of a run that goes on: from which checkpoint and `step`, what is `changed` since, and of which run it
            is a `branch`.
    """
    folder = Path(run.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    record = {**environment(world_size), "seed": run.train.seed, "derived": derived, "data": data}
    path = folder / ENVIRONMENT
    if session is not None:
        first = _first_session(path) or record
        # What the run is and will be is what it is now.
        record = first | {"derived": derived, "resumed": [*first.get("resumed", []), session | record]}
    beside = folder / f".{ENVIRONMENT}.new"
    beside.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(beside, path)
    head = "".join(f"# after step {step}: {text}\n" for step, text in history(record))
    (folder / CONFIG).write_text(head + dump(run), encoding="utf-8")


def _first_session(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment(world_size: int) -> dict[str, Any]:
    """Versions, command, git revision and hardware of this process."""
    import torch  # not above: a folder that is taken is told before it is loaded

    device = "cpu"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return {
        "command": [sys.executable, *sys.argv],
        "versions": versions(),
        "git": _git_revision(),
        "host": platform.node(),
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "processes": world_size,
    }


def _git_revision() -> str | None:
    """Commit of the source tree that runs, with a + if it has changes; None for an installed package."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
