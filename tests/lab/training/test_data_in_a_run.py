"""Data through whole runs: loader processes, streamed sources that go on under another layout, held-out blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.checkpoint import manifest
from lab.config.sections import RunConfig
from lab.data import DataConfig, DataError, tokenizer
from lab.data import corpus as corpus_module
from lab.data.hub import HubSource
from lab.errors import UserError
from lab.runfolder import metrics
from lab.training.run import pretrain

PROGRAM = """
import sys
from lab.data import corpus, tokenizer
from lab.data.hub import HubSource
from lab.pretrain import main
if __name__ == "__main__":
    for module in (corpus, tokenizer):
        module.resolve_source = lambda c: HubSource(c.source[0], c.subset, c.split, c.heldout_split, c.field)
    sys.exit(main())
"""


def curve(run_dir: str | Path, name: str = "train/loss") -> dict[int, float]:
    return {record["step"]: record[name] for record in metrics.read(Path(run_dir)) if name in record}


@pytest.fixture
def shards(corpus_file: Path, tmp_path: Path) -> Path:
    """The documents as six files of unequal length, to be streamed."""
    folder = tmp_path / "shards"
    folder.mkdir()
    lines = corpus_file.read_text(encoding="utf-8").splitlines()
    for number in range(6):
        (folder / f"train-{number}.jsonl").write_text("\n".join(lines[number :: 6 + number % 2]), encoding="utf-8")
    return folder


@pytest.fixture
def streamed(settings: Callable[..., RunConfig], shards: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def resolve(config: DataConfig) -> HubSource:
        return HubSource(config.source[0], config.subset, config.split, config.heldout_split, config.field)

    for module in (corpus_module, tokenizer):
        monkeypatch.setattr(module, "resolve_source", resolve)

    def make(name: str, **overrides: Any) -> RunConfig:
        return settings(name, **(COMMON | {"data__source": shards} | overrides))

    return make


COMMON: dict[str, Any] = {
    "train__steps": 8,
    "train__global_batch": 8,
    "train__micro_batch": 8,
    "checkpoint__every": 4,
    "data__readers": 6,
    "data__shuffle_buffer": 30,
}


def test_loader_processes_change_nothing(settings: Callable[..., RunConfig]) -> None:
    common = {"train__global_batch": 8, "train__micro_batch": 2}
    runs = [settings(f"workers-{workers}", data__workers=workers, **common) for workers in (0, 1, 2)]
    assert all(pretrain(run) for run in runs)
    first, *others = [curve(run.run_dir) for run in runs]
    assert len(first) == 6 and all(other == first for other in others)


def test_a_streamed_run_goes_on_with_another_micro_batch_and_other_loaders(streamed: Any) -> None:
    whole = streamed("whole")
    assert pretrain(whole)
    assert pretrain(streamed("parts", train__micro_batch=2, data__workers=2))
    assert curve(streamed("parts").run_dir) == pytest.approx(curve(whole.run_dir), rel=1e-5)
    for workers, micro_batch in ((0, 4), (1, 8)):
        (Path(whole.run_dir).parent / "parts" / "checkpoints" / "step-000008" / "manifest.json").unlink()
        assert pretrain(streamed("parts", resume="latest", train__micro_batch=micro_batch, data__workers=workers))
        assert curve(streamed("parts").run_dir) == pytest.approx(curve(whole.run_dir), rel=1e-5)


def test_a_position_of_another_format_is_refused_by_name(streamed: Any) -> None:
    assert pretrain(streamed("run", train__steps=4))
    folder = Path(streamed("run").run_dir) / "checkpoints" / "step-000004"
    [file] = folder.rglob("rank-00000.pt")
    own = torch.load(file, weights_only=True)
    del own["data"]["format"]
    torch.save(own, file)
    described = manifest.read(folder)
    (folder / manifest.NAME).unlink()
    manifest.write(folder, described)
    with pytest.raises(UserError, match=r"another version of depthlab \(format 1; this one reads 2\)"):
        pretrain(streamed("run", resume="latest"))


@pytest.mark.slow
def test_a_streamed_run_goes_on_with_another_number_of_processes(
    streamed: Any, flags: Callable[..., list[str]], launch: Any, shards: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert pretrain(streamed("whole"))
    assert pretrain(streamed("parts"))
    last = tmp_path / "parts" / "checkpoints" / "step-000008" / "manifest.json"
    for processes in (2, 1, 2):
        last.unlink()
        overrides = COMMON | {"data__source": shards, "train__micro_batch": 4, "data__workers": processes - 1}
        if processes == 1:
            assert pretrain(streamed("parts", resume="latest"))
        else:
            done = launch(processes, *flags("parts", resume="latest", **overrides), program=program)
            assert done.returncode == 0, done.stdout + done.stderr
        for name in ("train/loss", "eval/loss", "eval/loss_se"):
            assert curve(tmp_path / "parts", name) == pytest.approx(curve(tmp_path / "whole", name), rel=2e-5), name


def test_a_streamed_run_holds_out_as_many_blocks_as_asked_for(streamed: Any) -> None:
    assert pretrain(streamed("run", eval__blocks=90, train__steps=1))
    # Documents stay whole, so there are more than the 2 that are read at least.
    more = r"--eval.blocks 9000: there are \d+ held-out blocks.*raise --data.heldout-blocks \(now 2\)"
    with pytest.raises(DataError, match=more):
        pretrain(streamed("few", eval__blocks=9000, data__heldout_blocks=2))
    with pytest.raises(DataError, match=r"--eval.blocks 9999: there are \d+ held-out blocks.*--data.heldout-fraction"):
        pretrain(streamed("short", eval__blocks=9999, data__heldout_blocks=9999))


def test_the_number_of_passes_is_told(settings: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    run = settings("run")
    assert pretrain(run)
    train_blocks = json.loads((Path(run.run_dir) / "environment.json").read_text())["data"]["train_blocks"]
    assert curve(run.run_dir, "epoch") == pytest.approx({step: 4 * step / train_blocks for step in range(1, 7)})
    assert f"({4 * 6 / train_blocks:.3g} passes over the text)" in capsys.readouterr().out
