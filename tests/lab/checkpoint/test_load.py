"""One loader: what a checkpoint lacks, has too much or holds in another shape is named, in every command alike."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import normalization
from lab.checkpoint import load_model
from lab.cli import main
from lab.config.read import parse
from lab.errors import RunError
from lab.model.build import build_model

WEIGHTS = "model.safetensors"
DOWN = "model.layers.1.mlp.down_proj.weight"


def tiny():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    )


@pytest.fixture
def stock(tmp_path):
    tiny().save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def edited(change):
    def damage(folder):
        weights = load_file(folder / WEIGHTS)
        save_file(change(weights), folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def without(name):
    return edited(lambda weights: {key: value for key, value in weights.items() if key != name})


def prefixed(prefix):
    return edited(lambda weights: {prefix + key: value for key, value in weights.items()})


def cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def lfs_pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 98304\n"
    (folder / WEIGHTS).write_text(text, encoding="utf-8")


def config(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


DAMAGES = {
    "missing matrix": (without(DOWN), f"missing: {DOWN}"),
    "missing norm": (without("model.norm.weight"), "missing: model.norm.weight"),
    "missing norm of a layer": (
        without("model.layers.0.input_layernorm.weight"),
        "missing: model.layers.0.input_layernorm",
    ),
    "a layer too many": (
        edited(lambda weights: weights | {DOWN.replace("1", "2"): weights[DOWN].clone()}),
        "unexpected: model.layers.2.mlp.down_proj.weight",
    ),
    "compiled": (prefixed("_orig_mod."), "model._orig_mod"),
    "in DDP": (prefixed("module."), "model.module"),
    "another shape": (
        edited(lambda weights: weights | {DOWN: weights[DOWN][:, :40].contiguous()}),
        f"of another shape: {DOWN} [32, 40] for [32, 48]",
    ),
    "another vocabulary": (config(vocab_size=65), "of another shape: lm_head.weight [64, 32] for [65, 32]"),
    "cut": (cut, "model.safetensors is cut or damaged"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "model.safetensors is empty"),
    "LFS pointer": (lfs_pointer, "model.safetensors is a pointer of Git LFS; run git lfs pull"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no checkpoint"),
    "no weights but a cut pickle": (
        lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin").write_bytes(b"PK\3\4"),
        "cannot be loaded",
    ),
    "no causal LM": (config(model_type="clip"), "it is no causal LM"),
    "no type": (config(model_type="unheard_of"), "cannot be loaded"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_named(damage, stock, settings):
    do, text = DAMAGES[damage]
    do(stock)
    with pytest.raises(RunError) as caught:
        load_model(stock)
    assert text in str(caught.value) and str(stock) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing matrix", "compiled", "another shape", "cut", "LFS pointer"])
def test_every_command_says_the_same_in_one_line(damage, stock, flags, tmp_path, capsys):
    do, text = DAMAGES[damage]
    do(stock)
    (tmp_path / "ids.npy").write_bytes(b"")
    import numpy

    numpy.save(tmp_path / "ids.npy", numpy.arange(64, dtype="int64").reshape(2, 32))
    commands = {
        "pretrain": [*flags("run", model__checkpoint=stock, data__tokenizer="bpe:260"), "--model.vocab-size", "64"],
        "describe": [stock],
        "convert": [stock, "--to", "lns", "--out", tmp_path / "out"],
        "export": [stock, "--to", "stock", "--out", tmp_path / "out"],
        "prune": [stock, "--layers", "1", "--out", tmp_path / "out"],
        "diagnose": [stock, "--probe", tmp_path / "ids.npy", "--out", tmp_path / "out", "--only", "variance"],
    }
    for command, words in commands.items():
        assert main([command, *map(str, words)]) == 1, command
        told = capsys.readouterr().err.strip().splitlines()
        assert text in told[-1] and told[-1].startswith("error: "), (command, told)


@pytest.mark.parametrize(
    ("scheme", "flags_of", "added"),
    [("peri", [], 4), ("mix", ["--normalization.post-layers", "1"], 0), ("post", ["--normalization.no-final-norm"], 0)],
)
def test_a_scheme_may_add_and_drop_its_own_norms_and_nothing_else(scheme, flags_of, added, stock):
    words = ["--model.checkpoint", str(stock), "--normalization.scheme", scheme, *flags_of, "--data.block-length", "16"]
    run = parse(words, prog="t")
    model = build_model(run, tokenizer_size=64, eos_token_id=None)
    theirs, ours = load_file(stock / WEIGHTS), model.state_dict()
    assert len(ours.keys() - theirs.keys()) == added
    assert all(torch.equal(ours[name], torch.ones(32)) for name in ours.keys() - theirs.keys())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    without(DOWN)(stock)
    with pytest.raises(RunError, match=f"missing: {DOWN}"):
        build_model(run, tokenizer_size=64, eos_token_id=None)


def test_a_checkpoint_with_a_scheme_must_hold_the_norms_of_that_scheme(tmp_path):
    normalization.apply(tiny(), "peri").save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    new = sorted(weights.keys() - tiny().state_dict().keys())[0]
    without(new)(tmp_path)
    words = ["--model.checkpoint", str(tmp_path), "--normalization.scheme", "peri", "--data.block-length", "16"]
    with pytest.raises(RunError, match=f"missing: {new}"):
        build_model(parse(words, prog="t"), tokenizer_size=64, eos_token_id=None)
