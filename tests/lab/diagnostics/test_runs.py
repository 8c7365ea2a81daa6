"""The command line over checkpoints: runs, folders, records; resumed, watched, interrupted; and wrong commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import normalization
from lab.checkpoint import load_model
from lab.config.read import parse
from lab.diagnostics import Record, after_checkpoint, load, measure, names, start_watcher
from lab.diagnostics.command import main
from lab.diagnostics.engine.probe_source import make_probe
from lab.errors import RunError
from lab.training.run import pretrain
from tests.lab.diagnostics.models import build

QUICK = ("--only", "variance,angular")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, cache_dir: Path) -> Path:
    """A run of 3 layers with Mix-LN and checkpoints at steps 2 and 4."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "mix"
    words = [
        *("--run-dir", folder, "--model.preset", "tiny-3x32", "--normalization.scheme", "mix"),
        *("--normalization.post-layers", 1, "--data.source", corpus_file, "--data.tokenizer", "bpe:400"),
        *("--data.block-length", 16, "--data.heldout-fraction", 0.2, "--data.cache-dir", cache_dir),
        *("--train.steps", 4, "--train.micro-batch", 4, "--train.global-batch", 4, "--checkpoint.every", 2),
    ]
    assert pretrain(parse([str(word) for word in words], prog="test"))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, without records."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def diagnose(*words: Any) -> int:
    return main([str(word) for word in words], prog="depthlab diagnose")


def records(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "diagnostics").iterdir())


def test_a_run_is_measured_in_order_and_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(run, *QUICK, "--blocks", 5) == 0
    said = capsys.readouterr().out
    assert said.index("step-000002: loading") < said.index("step-000004: loading")
    assert records(run) == [f"step-00000{step}.{kind}" for step in (2, 4) for kind in ("json", "safetensors")]
    record = load(run / "diagnostics" / "step-000004")
    assert (record.model["step"], record.model["tokens"], record.model["scheme"]) == (4, 256, "mix")
    assert record.model["plans"][0] == "N(x + F(x))"
    assert len(record.probe) == 5
    assert record.probe.length == 16

    assert diagnose(run, *QUICK, "--blocks", 5) == 0
    assert "loading" not in capsys.readouterr().out

    # What a record lacks is added, and nothing else is measured.
    assert diagnose(run, "--only", "variance,rank", "--blocks", 5) == 0
    said = capsys.readouterr().out
    assert "one pass for rank\n" in said
    again = load(run / "diagnostics" / "step-000004")
    assert set(again.diagnostics) == {"variance", "angular", "rank"}
    np.testing.assert_array_equal(again.figure("angular/step").values, record.figure("angular/step").values)


def test_the_scheme_of_the_checkpoint_is_what_is_measured(run: Path) -> None:
    diagnose(run, *QUICK, "--latest")
    record = load(run / "diagnostics" / "step-000004")
    model = load_model(run / "checkpoints" / "step-000004")
    assert normalization.spec(model).scheme == "mix"
    expected = measure(model, record.probe, only="variance")
    np.testing.assert_allclose(
        record.figure("variance/stream_mean").values, expected.figure("variance/stream_mean").values, rtol=1e-6
    )
    assert not (run / "diagnostics" / "step-000002.json").exists()


def test_another_probe_or_option_is_not_mixed_in(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(run, *QUICK, "--blocks", 5) == 0
    assert diagnose(run, *QUICK, "--blocks", 6) == 1
    assert "was measured on another probe" in capsys.readouterr().err
    assert diagnose(run, "--only", "removal", "--blocks", 5, "--removal-max", 2) == 1
    assert "was measured with --removal-max 1, not 2" in capsys.readouterr().err
    assert diagnose(run, *QUICK, "--blocks", 6, "--again") == 0
    assert len(load(run / "diagnostics" / "step-000002").probe) == 6


def test_incomplete_and_damaged_ones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "step-000002" / "manifest.json").unlink()
    assert diagnose(run, *QUICK) == 0
    assert "passing over a checkpoint" in capsys.readouterr().out
    assert records(run) == ["step-000004.json", "step-000004.safetensors"]
    assert diagnose(run / "checkpoints" / "step-000002", *QUICK) == 1
    assert "is incomplete" in capsys.readouterr().err
    (run / "diagnostics" / "step-000004.safetensors").write_bytes(b"")
    assert diagnose(run, *QUICK) == 0
    assert "measuring anew" in capsys.readouterr().out
    load(run / "diagnostics" / "step-000004")


def test_a_measurement_that_is_killed_leaves_no_half_record(run: Path, start: Any) -> None:
    process = start("diagnose", run, "--blocks", 64, "--removal-max", 3)
    assert process.stdout is not None
    for line in process.stdout:
        if "one pass" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = run / "diagnostics"
    assert not folder.exists() or not list(folder.glob("step-*"))
    assert diagnose(run, *QUICK) == 0
    assert len(list(folder.glob("step-*.json"))) == 2


def test_watching_measures_what_appears_and_ends_with_the_run(run: Path, tmp_path: Path, start: Any) -> None:
    last = tmp_path / "step-000004"
    os.replace(run / "checkpoints" / "step-000004", last)
    process = start("diagnose", run, "--watch", *QUICK)
    first = run / "diagnostics" / "step-000002.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    os.replace(last, run / "checkpoints" / "step-000004")
    assert process.wait(timeout=120) == 0
    assert load(run / "diagnostics" / "step-000004").model["step"] == 4


def test_a_watcher_ends_with_its_parent(run: Path) -> None:
    (run / "checkpoints" / "step-000004" / "manifest.json").unlink()  # so that the run never completes
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert diagnose(run, "--watch", "--parent", gone.pid, *QUICK) == 0
    assert records(run) == ["step-000002.json", "step-000002.safetensors"]


def test_training_measures_in_its_own_process_and_a_watcher_the_rest(run: Path) -> None:
    folder = run / "checkpoints" / "step-000004"
    model = load_model(folder).train()
    probe = make_probe(None, run_dir=run, tokenizer=None, longest=None, blocks=None, length=None, seed=0)
    record = after_checkpoint(model, folder, probe)
    assert model.training
    assert set(record.diagnostics) == set(names(cheap=True)) < set(names())
    shutil.rmtree(run / "checkpoints" / "step-000002")
    watcher = start_watcher(run, "--only", "angular,spectra")
    assert watcher.wait(timeout=120) == 0, (run / "diagnostics" / "watch.log").read_text()
    merged = load(run / "diagnostics" / "step-000004")
    assert set(merged.diagnostics) == {*names(cheap=True), "spectra"}
    with pytest.raises(RunError, match="is incomplete"):
        after_checkpoint(model, run / "checkpoints" / "step-000009", probe)


def test_any_folder_with_token_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    build("gpt2", None).save_pretrained("model")
    np.save("ids.npy", np.array([[1, 2, 3, -1], [4, 5, 6, 7]]))
    assert diagnose("model", "--probe", "ids.npy", *QUICK, "--show") == 0
    said = capsys.readouterr().out
    assert "gpt2, 5 layers" in said
    record = load("diagnostics/model.json")
    assert record.probe.summary()["tokens"] == 7
    # The probe of a record serves another model, and a record is shown.
    build("llama", "peri").save_pretrained("other")
    assert diagnose("other", "--probe", "diagnostics/model.json", *QUICK) == 0
    assert load("diagnostics/other.json").probe.id == record.probe.id
    assert diagnose("diagnostics/other.json", "--only", "angular") == 0
    assert "angular/influence [1]" in capsys.readouterr().out
    # Other weights under the same name are noticed.
    shutil.rmtree("model")
    build("llama", None).save_pretrained("model")
    assert diagnose("model", "--probe", "ids.npy", "--only", "rank") == 1
    assert "was measured on other weights" in capsys.readouterr().err


def test_any_text(run: Path, tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "some.txt"
    text.write_text("What each layer contributes. " * 40)
    assert (
        diagnose(run, "--latest", "--probe", text, "--block-length", 8, "--blocks", 3, *QUICK, "--out", tmp_path) == 0
    )
    record = load(tmp_path / "step-000004")
    assert (record.probe.source, len(record.probe), record.probe.length) == (str(text), 3, 8)
    assert diagnose(run, "--latest", "--probe", corpus_file, "--field", "texts", *QUICK, "--again") == 1
    assert "no field 'texts'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{tmp}/nothing"], 1, "is no folder here, and no name that the hub answers to"),
        (["{run}", "--only", "angular,removle"], 2, "no such diagnostic (did you mean removal?)"),
        (["{run}", "--only", ","], 2, "--only: name at least one of"),
        (["{run}", "--blocks", "0"], 2, "--blocks 0: must be at least 1"),
        (["{run}", "--block-length", "1"], 2, "--block-length 1: must be at least 2"),
        (["{run}", "--block-length", "32"], 1, "this model's positions end at 16; use --block-length 16 or less"),
        (["{run}", "--device", "cuda:77"], 2, "--device cuda:77"),
        (["{run}", "--probe", "{tmp}/none.npy"], 1, "no token ids can be read"),
        (["{run}", "--probe", "{tmp}/floats.npy"], 1, "is an array of integers (blocks, tokens), not float64 (2, 3)"),
        (["{run}", "--probe", "{tmp}/left.npy"], 1, "must stand to the right of a block's tokens"),
        (["{run}", "--probe", "{tmp}/big.npy"], 1, "holds token id 9999"),
        (["{tmp}/torn", "--probe", "{tmp}/ids.npy"], 1, "torn cannot be loaded"),
        (["{run}/config.yaml"], 1, "a file, but no .gguf model and no record"),
        (["{tmp}/none.json"], 1, "no such file, so there is no record"),
        (["{tmp}/none.gguf"], 1, "no such file"),
        (["{run}/checkpoints/step-000002", "--latest"], 2, "is no run folder"),
        (["{tmp}/bert"], 1, "keeps its layers: it has no entry"),
        (["{tmp}/t5"], 1, "diagnostics are for decoder-only causal LMs"),
        (["{tmp}/plain"], 1, "the model comes without a tokenizer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_commands(
    words: list[str], code: int, message: str, trained: Path, wrong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"run": str(trained), "tmp": str(wrong)}
    extra = [] if "none.json" in words[0] else ["--out", str(wrong / "records")]
    probe = ["--probe", str(wrong / "ids.npy")] if words[0].endswith(("bert", "t5")) else []
    assert diagnose(*(word.format(**places) for word in words), *extra, *probe) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "0"], "--batch 0: must be at least 1"),
        (["--sparsity-levels", "1.5"], "--sparsity-levels 1.5: must be a share"),
        (["--sparsity-levels-all", "4:4"], "--sparsity-levels-all 4:4: must be a share"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_impossible_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        diagnose("run", *words)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert message in " ".join((said.err + said.out).replace("│", " ").split())


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    np.save(folder / "ids.npy", np.array([[1, 2, 3]]))
    np.save(folder / "floats.npy", np.ones((2, 3)))
    np.save(folder / "left.npy", np.array([[-1, 2, 3]]))
    np.save(folder / "big.npy", np.array([[1, 9999]]))
    small: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 61}
    BertForMaskedLM(BertConfig(**small, intermediate_size=32)).save_pretrained(folder / "bert")
    t5 = T5Config(vocab_size=61, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(t5).save_pretrained(folder / "t5")
    build("llama", None).save_pretrained(folder / "plain")
    shutil.copytree(folder / "plain", folder / "torn")
    weights = folder / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return folder


def test_help_is_quick_to_load() -> None:
    import sys

    code = "import sys, lab.diagnostics.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_command_line_knows_it(depthlab: Callable[..., Any], trained: Path) -> None:
    done = depthlab("diagnose", "--help")
    assert done.returncode == 0
    assert "--only" in done.stdout
    wrong_flag = depthlab("diagnose", trained, "--onyl", "angular")
    assert wrong_flag.returncode == 2
    assert "--only" in wrong_flag.stderr + wrong_flag.stdout


def test_records_of_a_run_are_plain_json(run: Path) -> None:
    assert diagnose(run, "--only", "spectra", "--latest") == 0
    content = json.loads((run / "diagnostics" / "step-000004.json").read_text())
    assert content["environment"]["versions"]["torch"] == torch.__version__
    assert isinstance(load(run / "diagnostics" / "step-000004.json"), Record)
