"""Run recipes and cluster files: what they say is what was published, and what they start can be parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.config.presets import PRESETS
from lab.config.read import parse
from launch import presets
from launch.command import Launch
from tests.launch.conftest import REPOSITORY, losses, run

LAUNCH = REPOSITORY / "launch"
# Size: (layers, width, MLP, heads), learning rate, steps, warm-up, Post-LN layers of Mix-LN: the papers'.
PUBLISHED: dict[str, tuple[tuple[int, int, int, int], float, int, int, int]] = {
    "71m": ((12, 512, 1368, 8), 1e-3, 10_000, 1_000, 3),
    "130m": ((12, 768, 2048, 12), 1e-3, 20_000, 2_000, 3),
    "250m": ((24, 768, 2560, 16), 1e-3, 40_000, 4_000, 6),
    "350m": ((24, 1024, 2736, 16), 5e-4, 60_000, 6_000, 6),
    "1b": ((24, 2048, 5461, 32), 5e-4, 100_000, 1_000, 6),
    "7b": ((32, 4096, 11008, 32), 5e-4, 150_000, 15_000, 8),
}
SCHEMES = ("pre", "post", "mix", "lns", "deepnorm", "peri", "out")


def recipe(size: str) -> Path:
    return LAUNCH / "recipes" / f"llama_{size}.yaml"


def test_there_is_a_recipe_for_every_published_size():
    assert {path.stem for path in (LAUNCH / "recipes").iterdir()} == {f"llama_{size}" for size in PUBLISHED}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", PUBLISHED)
def test_a_recipe_is_the_published_run(size, scheme):
    shape, lr, steps, warmup, post_layers = PUBLISHED[size]
    text = recipe(size).read_text(encoding="utf-8")
    flags = ["--config", str(recipe(size)), "--normalization.scheme", scheme]
    if scheme == "mix":
        assert f"--normalization.scheme mix --normalization.post-layers {post_layers}\n" in text
        flags += ["--normalization.post-layers", str(post_layers)]
    settings = parse(flags, prog="test")
    preset = PRESETS[settings.model.preset]
    assert (preset.layers, preset.width, preset.mlp_width, preset.heads) == shape
    assert settings.tokens == steps * 512 * 256 and settings.steps == steps
    assert (settings.train.global_batch, settings.data.block_length) == (512, 256)
    optim = settings.optim
    assert (optim.name, optim.lr, optim.warmup, optim.floor) == ("adam", lr, warmup, 0.1)
    assert (optim.betas, optim.weight_decay, optim.clip, optim.schedule) == ((0.9, 0.999), 0.0, None, "cosine")
    assert settings.train.precision == "bf16" and settings.model.vocab_size == 32_000
    assert (settings.data.source, settings.data.subset, settings.data.tokenizer) == (("allenai/c4",), "en", "t5-base")
    assert 512 % (settings.train.micro_batch * 16) == 0, "two nodes of 8 GPUs divide the batch"
    assert settings.data.readers % 16 == 0, "and read every file once"
    assert 1e7 < settings.eval.blocks * 256 <= settings.data.heldout_blocks * 256


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_command_in_a_recipe_is_one_that_parses(size):
    comments = [line.lstrip("# ") for line in recipe(size).read_text(encoding="utf-8").splitlines()[1:3]]
    words = shlex.split(" ".join(comments).replace("\\", ""))
    assert words[:2] == ["depthlab", "launch"]
    ours, flags = split(words)
    presets.get(ours[ours.index("--preset") + 1])
    assert parse([str(recipe(size)) if word == f"llama_{size}.yaml" else word for word in flags], prog="test")


def split(words: list[str]) -> tuple[list[str], list[str]]:
    at = words.index("--")
    return words[:at], words[at + 1 :]


def test_a_recipe_trains(flags, tmp_path):
    """With another text, size and length, since C4 is not at hand."""
    ours = flags(tmp_path / "run", train__global_batch=8, optim__warmup=1, eval__every=0, checkpoint__every=0)
    ours += ["--data.subset", "None", "--data.heldout-split", "None", "--train.precision", "fp32"]
    done = run("-m", "lab.pretrain", "--config", recipe("130m"), *ours, "--normalization.scheme", "lns")
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 4
    assert "vocabulary 32,000" in done.stdout


def check_launch(words: list[str]) -> Any:
    """The words after `depthlab launch`, really parsed; the run's settings."""
    import tyro

    ours, flags = split(words)
    launch = tyro.cli(Launch, args=ours)
    presets.get(launch.preset)
    assert launch.nodes == 2 and launch.machine_rank is not None and launch.main_address
    flags = [re.sub(r"(?:/shared|launch/recipes)/(llama_\w+\.yaml)", rf"{LAUNCH}/recipes/\1", word) for word in flags]
    settings = parse(flags, prog="test")
    assert settings.train.global_batch % (settings.train.micro_batch * 16) == 0
    assert settings.resume == "auto" and settings.normalization.scheme == "mix"
    return settings


def test_kubernetes_starts_a_run_that_can_be_asked_to_stop():
    text = (LAUNCH / "kubernetes/pretrain.yaml").read_text(encoding="utf-8")
    service, job = yaml.safe_load_all(text)
    assert service["spec"]["clusterIP"] == "None"
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == ["depthlab", "launch"] and pod["terminationGracePeriodSeconds"] >= 300
    check_launch([word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in container["args"]])
    assert f"--main-address={job['metadata']['name']}-0.{service['metadata']['name']}" in container["args"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]


def test_skypilot_starts_a_run_that_goes_on():
    task = yaml.safe_load((LAUNCH / "sky/pretrain.yaml").read_text(encoding="utf-8"))
    command = task["run"].replace('"$(echo "$SKYPILOT_NODE_IPS" | head -n1)"', "10.0.0.1")
    for name, value in {"NUM_NODES": "2", "NUM_GPUS_PER_NODE": "8", "NODE_RANK": "1"}.items():
        command = command.replace(f"$SKYPILOT_{name}", value)
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:3] == ["exec", ".venv/bin/depthlab", "launch"] and "$" not in command
    settings = check_launch(words[3:])
    assert settings.run_dir.startswith(next(iter(task["volumes"])))
