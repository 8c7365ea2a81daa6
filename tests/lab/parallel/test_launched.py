"""No variable of a launcher or library chooses what is computed."""

from __future__ import annotations

import json
import os

import pytest

from lab.errors import ConfigError
from lab.parallel import launched
from lab.runfolder import metrics
from lab.training.run import pretrain

HOSTILE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "EAGER",
    "ACCELERATE_DYNAMO_MODE": "max-autotune",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "true",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "true",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "ACCELERATE_BYPASS_DEVICE_MAP": "true",
    "ACCELERATE_FP8_BACKEND": "MSAMP",
    "ACCELERATE_FP8_OPT_LEVEL": "O2",
    "ACCELERATE_CONFIG_DS_FIELDS": "gradient_clipping",
    "ACCELERATE_ALLOW_CP_STANDALONE": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "true",
    "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_IGNORED_MODULES": ".*mlp.*",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_USE_ORIG_PARAMS": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2",
    "PARALLELISM_CONFIG_CP_SIZE": "2",
    "MEGATRON_LM_GRADIENT_CLIPPING": "0.1",
}


def figures(run_dir):
    return [
        {name: value for name, value in record.items() if "second" not in name}
        for record in metrics.read(run_dir, say=pytest.fail)
    ]


def test_hostile_variables_leave_every_figure_of_a_run_alone(settings, tmp_path, monkeypatch, capsys):
    common = {"train__global_batch": 8, "train__micro_batch": 2, "optim__clip": 0.5}
    assert pretrain(settings("plain", **common))
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert pretrain(settings("hostile", **common))
    assert figures(tmp_path / "hostile") == figures(tmp_path / "plain")
    told = capsys.readouterr()
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 is not read: --train.global-batch" in told.out + told.err
    assert all(os.environ[name] == value for name, value in HOSTILE.items()), "given back"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ddp", "zero2", "zero3", "fsdp2"])
def test_hostile_variables_leave_several_processes_alone(preset, flags, launch, tmp_path, monkeypatch):
    common = {"train__global_batch": 8, "train__micro_batch": 2, "optim__clip": 0.5, "train__steps": 4}
    plain = launch(2, *flags("plain", **common), preset=preset)
    assert plain.returncode == 0, plain.stderr
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    hostile = launch(2, *flags("hostile", **common), preset=preset)
    assert hostile.returncode == 0, hostile.stderr
    for ours, theirs in zip(figures(tmp_path / "plain"), figures(tmp_path / "hostile"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize("name", ["MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER"])
def test_ways_of_sharing_that_are_not_supported_are_refused(name, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=f"ACCELERATE_USE_{name}: .* not supported"), launched.only_places():
        pass


def test_fsdp_1_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="fsdp_version: 2"):
        launched.engine()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}}, "optimizer would change"),
        (
            {"zero_optimization": {"stage": 2}, "communication_data_type": "fp16"},
            "communication_data_type would change",
        ),
        ({"zero_optimization": {"stage": 2}, "curriculum_learning": {}}, "curriculum_learning would change"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_gradients": True}}, "zero_quantized_gradients rounds"),
        ([], "keys and values"),
        ("{", "Expecting"),
    ],
)
def test_deepspeeds_own_file_says_how_state_is_shared_and_no_more(tmp_path, content, message):
    path = tmp_path / "zero.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        launched.deepspeed_settings(str(path))
