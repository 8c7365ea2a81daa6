"""The type in which a record was measured, and devices without float64."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lab.checkpoint import load_model
from lab.checkpoint.retention import retain
from lab.config.sections import CheckpointConfig
from lab.diagnostics import after_checkpoint, awaits, load, measure, measurement, runs
from lab.diagnostics.command import main
from lab.diagnostics.engine import session
from lab.errors import ConfigError, RunError
from lab.training.optim import build_optimizer
from lab.training.run import pretrain
from tests.lab.checkpoint.test_checkpoint import write


def test_a_bf16_run_is_measured_in_the_type_of_its_weights(settings, tmp_path):
    """Autocast is around the model that trains, not around what is measured: the record is that of the checkpoint."""
    assert pretrain(settings(train__precision="bf16", checkpoint__diagnose="cheap", train__steps=3))
    record = load(tmp_path / "run/diagnostics/step-000003.json")
    assert record.model["dtype"] == "float32"
    again = measure(load_model(tmp_path / "run"), record.probe, only=list(record.diagnostics))
    for diagnostic, figures in record.diagnostics.items():
        for name, figure in figures.items():
            theirs = again.diagnostics[diagnostic][name]
            np.testing.assert_allclose(
                figure.values, theirs.values, rtol=1e-5, atol=1e-7, err_msg=f"{diagnostic}/{name}"
            )


def test_types_are_never_merged(settings, tmp_path, capsys):
    assert pretrain(settings(train__steps=3))
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    assert main([str(folder), "--only", "variance", "--blocks", "2", "--dtype", "bfloat16"], prog="t") == 0
    path = tmp_path / "run/diagnostics/step-000003.json"
    assert load(path).model["dtype"] == "bfloat16"
    assert main([str(folder), "--only", "lens", "--blocks", "2", "--dtype", "float32"], prog="t") == 1
    assert "was measured in bfloat16, not --dtype float32; measure anew with --again" in capsys.readouterr().err
    # Without a type, in that of what is there.
    assert main([str(folder), "--only", "lens", "--blocks", "2"], prog="t") == 0
    record = load(path)
    assert record.model["dtype"] == "bfloat16" and set(record.diagnostics) == {"variance", "lens"}
    expected = measure(load_model(folder, dtype="bfloat16"), record.probe, only="lens")
    np.testing.assert_allclose(record.figure("lens/loss").values, expected.figure("lens/loss").values, rtol=1e-6)


class NoFloat64(TorchDispatchMode):
    """As Apple's GPUs: the model's weights, and all that is computed from them until `.cpu()`, are never float64."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = False
        self._here: dict[int, torch.UntypedStorage] = {}  # held, so that none is taken for another

    def take(self, tensor: torch.Tensor) -> None:
        self._here[tensor.untyped_storage()._cdata] = tensor.untyped_storage()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if self.allowed:
            return result
        given, made = ([leaf for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor)] for x in (args, result))
        if any(tensor.untyped_storage()._cdata in self._here for tensor in given):
            for tensor in made:
                if tensor.dtype == torch.float64:
                    raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype ({function})")
                self.take(tensor)
        return result


def test_a_run_on_a_device_without_float64_trains_evaluates_and_is_diagnosed(settings, tmp_path, monkeypatch):
    """Nothing of training is in float64; what is measured is a copy elsewhere, with the figures of the model."""
    common = {"checkpoint__diagnose": "cheap", "train__steps": 3, "data__isolate_documents": True}
    assert pretrain(settings("plain", **common))
    AcceleratorState._reset_state(reset_partial_state=True)
    device, real, measured = NoFloat64(), measurement.measure, []

    def on_the_host(model, *args, **options):
        measured.append(model)
        device.allowed = True
        try:
            return real(model, *args, **options)
        finally:
            device.allowed = False

    trained = []
    real_after = runs.after_checkpoint

    def after(model, *args, **options):
        trained.append(model)
        return real_after(model, *args, **options)

    def brought_back(tensor):
        device.allowed = True
        copied = tensor.detach().clone()
        device.allowed = False
        return copied

    def built(model, *args):
        for parameter in model.parameters():
            device.take(parameter)
        return build_optimizer(model, *args)

    monkeypatch.setattr(torch.Tensor, "cpu", brought_back)
    monkeypatch.setattr("lab.training.learner.build_optimizer", built)
    monkeypatch.setattr("lab.training.loop.after_checkpoint", after)
    monkeypatch.setattr(runs, "measure", on_the_host)
    monkeypatch.setattr(runs, "has_float64", lambda device: False)
    with device:
        assert pretrain(settings("mac", **common))
    with device, pytest.raises(TypeError, match="float64"):
        next(trained[0].parameters()).double()
    ours = {parameter.data_ptr() for parameter in trained[0].parameters()}
    assert len(measured) == 1 and not ours & {parameter.data_ptr() for parameter in measured[0].parameters()}
    one, other = (load(tmp_path / name / "diagnostics/step-000003.json") for name in ("plain", "mac"))
    assert one.failures == other.failures == {} and set(one.diagnostics) == set(other.diagnostics)
    np.testing.assert_allclose(
        one.figure("variance/stream_mean").values, other.figure("variance/stream_mean").values, rtol=1e-6
    )


def test_measuring_on_such_a_device_is_refused(monkeypatch, tmp_path):
    from lab.diagnostics.command import _device
    from tests.lab.diagnostics.models import build

    monkeypatch.setattr(session, "WITHOUT_FLOAT64", frozenset({"cpu"}))
    with pytest.raises(ConfigError, match="--device cpu: has no float64"):
        _device("cpu")
    with pytest.raises(RunError, match="no float64"):
        measure(build("llama", None), None)


def test_a_checkpoint_stays_until_the_process_beside_has_measured_it(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    keep, folders = CheckpointConfig(keep_last=1), sorted((tmp_path / "checkpoints").iterdir())
    watcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        waiting = lambda folder: awaits(watcher, folder)  # noqa: E731
        retain(tmp_path, keep, awaited=waiting)
        assert all(folder.exists() for folder in folders)
        (tmp_path / "diagnostics").mkdir()
        (tmp_path / "diagnostics" / "step-000001.json").write_text("{}")
        retain(tmp_path, keep, awaited=waiting)
        assert [folder.exists() for folder in folders] == [False, True, True]
    finally:
        watcher.communicate(b"\n")
    retain(tmp_path, keep, awaited=waiting)
    assert [folder.exists() for folder in folders] == [False, False, True], "nobody waits any more"


@pytest.mark.parametrize(("words", "device"), [({}, "cpu"), ({"checkpoint__diagnose_device": "cuda:1"}, "cuda:1")])
def test_the_process_beside_takes_the_device_it_is_given_and_never_the_runs_own(settings, monkeypatch, words, device):
    started = []

    def start(run_dir: Path, *flags: str):
        started.append(flags)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr("lab.training.loop.start_watcher", start)
    assert pretrain(settings(checkpoint__diagnose="beside", train__steps=1, **words))
    assert started == [("--device", device)]
    with pytest.raises(ConfigError, match="checkpoint.diagnose-device"):
        CheckpointConfig(diagnose_device="the second one")


def test_deepspeeds_bf16_copy_is_measured_and_labelled_as_such(settings, tmp_path):
    assert pretrain(settings(train__steps=3))
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    assert main([str(folder), "--only", "variance", "--blocks", "2"], prog="t") == 0
    probe = load(tmp_path / "run/diagnostics/step-000003.json").probe
    model = copy.deepcopy(load_model(folder))
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    assert after_checkpoint(model, folder, probe, only=["variance"]).model["dtype"] == "bfloat16"
