"""Each preset file as it is, with real processes over gloo, against one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from launch import presets
from tests.launch.conftest import REPOSITORY, losses, run

FILES = REPOSITORY / "launch" / "presets"
MACHINE_KEYS = {
    "num_machines",
    "num_processes",
    "machine_rank",
    "main_process_ip",
    "main_process_port",
    "rdzv_backend",
    "same_network",
}
DECIDED_BY_THE_RUN = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
}


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load((FILES / f"{name}.yaml").read_text(encoding="utf-8"))


# DeepSpeed takes 20 s to start on two cores, the first time with CPU Adam minutes; stages 1 to 3 are in tests/lab too.
SLOW = ("zero1", "zero3", "zero3-offload")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in presets.NAMES]
)
def test_every_preset_trains_as_one_process(name, flags, tmp_path, reference):
    launcher = ["-m", "accelerate.commands.launch", "--config_file", FILES / f"{name}.yaml"]
    done = run(*launcher, REPOSITORY / "lab/pretrain.py", *flags(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("1 process on cpu" if name == "single" else "2 processes on cpu") in done.stdout
    assert losses(tmp_path / "run") == pytest.approx(reference, rel=3e-4)


@pytest.mark.parametrize("path", sorted(FILES.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_three_lines_say_when_what_it_costs_and_what_a_parameter_takes(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    heads = ("# When: ", "# Cost: ", "# Memory of a parameter")
    assert all(line.startswith(head) for line, head in zip(lines, heads, strict=False))
    assert not any("#" in line for line in lines[3:])
    settings = yaml.safe_load("\n".join(lines))
    assert settings["mixed_precision"] == "no" and "bytes" in lines[2]
    assert not DECIDED_BY_THE_RUN & (settings.keys() | settings.get("deepspeed_config", {}).keys())


@pytest.mark.parametrize("name", [name for name in presets.NAMES if name != "single"])
def test_the_multi_node_form_differs_in_the_machine_keys_only(name):
    one, many = content(name), content(f"multinode/{name}")
    many.get("deepspeed_config", {}).pop("deepspeed_multinode_launcher", None)
    for settings in (one, many):
        for key in MACHINE_KEYS:
            settings.pop(key, None)
    assert one == many
    text = [(FILES / folder / f"{name}.yaml").read_text(encoding="utf-8") for folder in (".", "multinode")]
    assert text[0].splitlines()[:3] == text[1].splitlines()[:3]


def zero_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What DeepSpeed makes of a zero_optimization section, defaults filled in."""
    settings = DeepSpeedZeroConfig(**given).model_dump()
    for kind in ("offload_param", "offload_optimizer"):
        if settings[kind] is not None and settings[kind]["device"] == "none":
            settings[kind] = None
    return settings


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero3-offload"])
def test_the_deepspeed_file_says_what_the_preset_says(name, monkeypatch):
    from accelerate.utils import DeepSpeedPlugin

    inline = content(name)["deepspeed_config"]
    plugin = DeepSpeedPlugin(
        zero_stage=inline["zero_stage"],
        zero3_init_flag=inline.get("zero3_init_flag", False),
        offload_optimizer_device=inline.get("offload_optimizer_device", "none"),
        offload_param_device=inline.get("offload_param_device", "none"),
    )
    path = REPOSITORY / "launch/deepspeed" / f"{name}.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    assert not DECIDED_BY_THE_RUN & file.keys()
    assert zero_settings(plugin.deepspeed_config["zero_optimization"]) == zero_settings(file["zero_optimization"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero3"])
def test_the_deepspeed_file_starts_a_run(name, flags, tmp_path, reference):
    """Its `_comment` included."""
    launcher = ["-m", "accelerate.commands.launch", "--use_deepspeed", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--deepspeed_config_file", REPOSITORY / "launch/deepspeed" / f"{name}.json"]
    launcher += ["--zero3_init_flag", "true", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = run(*launcher, "--main_process_port", "0", "-m", "lab.pretrain", *flags(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path / "run") == pytest.approx(reference, rel=3e-4)


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"--preset zero4: unknown\. Did you mean zero\d\? Choose from single, ddp"):
        presets.get("zero4")


def test_the_files_are_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for preset in map(presets.get, presets.NAMES):
        assert preset.file(nodes=1).samefile(FILES / f"{preset.name}.yaml")
    assert Path(presets.get("zero2").file(nodes=2)).parent.name == "multinode"
