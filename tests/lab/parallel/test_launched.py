"""No variable of a launcher or library chooses what is computed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from lab.config.read import dump, load, parse
from lab.config.resume import differences
from lab.config.sections import ParallelConfig
from lab.errors import ConfigError
from lab.parallel import launched
from lab.parallel.accelerator import make_accelerator
from lab.report import compare
from lab.report.read import read_all
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
    assert "is not read" not in plain.stdout + plain.stderr, "what a preset itself sets is no reason to warn"
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("DNNL_DEFAULT_FPMATH_MODE", "BF16"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "ANY"),
        ("TORCHINDUCTOR_USE_FAST_MATH", "1"),
        ("TORCHINDUCTOR_CPP_ENABLE_UNSAFE_MATH_OPT_FLAG", "1"),
        ("XLA_USE_BF16", "1"),
    ],
)
def test_variables_that_shorten_float32_are_refused(name, value, settings, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}={value}: .*--train.precision"):
        pretrain(settings())


def test_float32_products_are_float32_whatever_a_variable_said_to_torch(monkeypatch):
    """TF32 itself needs a GPU; what chooses it does not."""
    program = (
        "import torch\nfrom lab.parallel import launched\nbefore = torch.get_float32_matmul_precision()\n"
        "with launched.only_places() as told:\n"
        "    print(before, torch.get_float32_matmul_precision(), told)\nprint(torch.get_float32_matmul_precision())"
    )
    variables = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    said = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    inside, after = said.stdout.splitlines()
    assert inside.startswith("high highest ") and "--train.precision decides" in inside and after == "high"


def test_variables_that_choose_kernels_are_told_by_the_config_and_the_report(settings, monkeypatch, tmp_path):
    chosen = {
        "TRANSFORMERS_SDPA_FORCE_GQA": "1",
        "TORCHDYNAMO_SUPPRESS_ERRORS": "1",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "NCCL_ALGO": "Tree",
        "DS_SDMA_ALLGATHER": "1",
        "USE_HUB_KERNELS": "YES",
    }
    places = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TRITON_CACHE_DIR": "x", "NCCL_SOCKET_IFNAME": "lo"}
    assert pretrain(settings("plain", train__steps=1))
    for name, value in {**chosen, **places}.items():
        monkeypatch.setenv(name, value)
    assert pretrain(settings("chosen", train__steps=1, train__seed=1))
    found = load(tmp_path / "chosen" / "config.yaml").parallel.variables
    assert {name: found[name] for name in chosen} == chosen and not places.keys() & found.keys()
    runs = read_all([str(tmp_path / "plain"), str(tmp_path / "chosen")])
    differing = compare.config_differences(runs)
    assert differing["parallel.variables.NCCL_ALGO"] == [None, "Tree"]
    assert len(compare.grouped(runs)) == 2, "no two seeds of one run"


def test_who_shares_the_model_is_told_as_a_difference_and_pools_no_seeds(settings, tmp_path):
    for seed in (0, 1, 2):
        assert pretrain(settings(f"{seed}", train__steps=1, train__seed=seed))
    path = tmp_path / "2" / "config.yaml"
    stored = load(path)
    other = dataclasses.replace(stored, parallel=ParallelConfig("zero2", 2, "fp32", "fp32", "fp32", "fp32"))
    path.write_text(dump(other))
    runs = read_all([str(tmp_path / name) for name in "012"])
    assert [[run.name for run in group.runs] for group in compare.grouped(runs)] == [["0", "1"], ["2"]]
    assert compare.config_differences(runs)["parallel.engine"] == ["single", "single", "zero2"]


def test_another_preset_is_told_when_a_run_goes_on_and_never_refused(settings):
    run = settings()
    one = dataclasses.replace(
        run, parallel=ParallelConfig("ddp", 2, "bf16", "fp32", "fp32", "fp32", {"NCCL_ALGO": "Ring"})
    )
    two = dataclasses.replace(run, parallel=ParallelConfig("zero3", 4, "bf16", "bf16", "fp32", "fp32"))
    assert differences(one, two) == [
        "parallel.engine: ddp -> zero3",
        "parallel.processes: 2 -> 4",
        "parallel.stream: fp32 -> bf16",
        "parallel.variables.NCCL_ALGO: Ring -> None",
    ]
    assert differences(run, two) == [], "the file of an older run does not say"


def test_the_config_of_an_old_run_reads(settings, tmp_path):
    text = dump(settings()).split("parallel:")[0]
    (tmp_path / "old.yaml").write_text(text)
    assert load(tmp_path / "old.yaml").parallel == ParallelConfig()
    again = parse(["--config", str(tmp_path / "old.yaml"), "--train.steps", "7"], prog="test")
    assert again.train.steps == 7


@pytest.mark.parametrize(
    ("variables", "engine"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "fsdp2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "deepspeed"),
    ],
)
def test_fp16_is_refused_where_the_model_is_shared(variables, engine, settings, monkeypatch):
    """Its loss scale is not agreed on there; on a GPU too."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    with pytest.raises(ConfigError, match=f"--train.precision fp16: not with {engine}; use fp32 or bf16"):
        make_accelerator(settings(train__precision="fp16"))
