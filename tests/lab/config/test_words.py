"""Words of YAML mean what the setting that they are given to can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.config.read import dump, load
from lab.config.sections import RunConfig
from lab.errors import ConfigError


def given(tmp_path: Path, text: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    run = load(path)
    path.write_text(dump(run))
    assert load(path) == run
    return run


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        *(
            (f"checkpoint: {{diagnose: {word}}}", "checkpoint.diagnose", "no")
            for word in ("no", "off", "No", "false", "'no'")
        ),
        *(
            (f"checkpoint: {{keep_best: {word}}}", "checkpoint.keep_best", False)
            for word in ("no", "off", "False", "n")
        ),
        *((f"train: {{compile: {word}}}", "train.compile", True) for word in ("yes", "on", "True", "true")),
        *((f"data: {{begin_token: {word}}}", "data.begin_token", "yes") for word in ("yes", "on", "true")),
        *((f"optim: {{clip: {word}}}", "optim.clip", None) for word in ("None", "none", "null", "~", "")),
        ("train: {tokens: 1e5}", "train.tokens", 100_000),
        ("train: {tokens: 1.5e9}", "train.tokens", 1_500_000_000),
        ("train: {steps: 1_000}", "train.steps", 1000),
        ("train: {seed: 010}", "train.seed", 10),
        ("optim: {lr: 1e-3}", "optim.lr", 1e-3),
        ("optim: {betas: [9e-1, .95]}", "optim.betas", (0.9, 0.95)),
        ("eval: {blocks: all}", "eval.blocks", "all"),
        ("eval: {blocks: 37}", "eval.blocks", 37),
        ("checkpoint: {keep-last: None}", "checkpoint.keep_last", None),
        ("run_dir: 2024", "run_dir", "2024"),
        ("run_dir: off", "run_dir", "off"),
        ("data: {subset: no}", "data.subset", "no"),  # Norwegian, of many data sets
        ("data: {subset: ~}", "data.subset", None),
        ("data: {split: 1e5}", "data.split", "1e5"),
        ("data: {source: [on, 12]}", "data.source", ("on", "12")),
        ("data: {tokenizer: bpe:4096}", "data.tokenizer", "bpe:4096"),
        ("log: {trackers: tensorboard}", "log.trackers", ("tensorboard",)),
        ("normalization: {scheme: mix, post_layers: 4}", "normalization.post_layers", 4),
        ("normalization: {scheme: mix, alpha: 5e-1}", "normalization.alpha", 0.5),
        ("normalization: {scheme: mixed, layers: '3 post, peri+lns'}", "normalization.layers", "3 post, peri+lns"),
    ],
)
def test_words(tmp_path: Path, text: str, name: str, meant: object) -> None:
    value: object = given(tmp_path, text)
    for part in name.split("."):
        value = getattr(value, part)
    assert value == meant and type(value) is type(meant)


def test_plans_of_layers_keep_numbers_and_truths(tmp_path: Path) -> None:
    text = "normalization: {scheme: mixed, layers: [{norm_in: yes, input_scale: 5e-1}, {norm_post: true, norm_in: no}]}"
    assert given(tmp_path, text).normalization.layers == [
        {"norm_in": True, "input_scale": 0.5},
        {"norm_post": True, "norm_in": False},
    ]


@pytest.mark.parametrize(
    "text", ["train: {steps: many}", "train: {steps: 1.5}", "train: {compile: maybe}", "optim: {lr: no}"]
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: (train|optim)\.\w+: '"):
        given(tmp_path, text)
