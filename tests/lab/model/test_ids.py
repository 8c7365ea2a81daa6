"""Special tokens of a model that is trained are its tokenizer's, and no row of its embedding is kept from learning."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lab.checkpoint.folder import path_of
from lab.config.read import parse
from lab.config.sections import RunConfig
from lab.data import DataConfig, DataError
from lab.data.local import local_source
from lab.errors import ConfigError
from lab.model.build import build_model
from lab.training.run import pretrain
from normalization.families import FAMILIES

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
PAPER = {  # the keys of configs/llama_130m.json in the repositories of Mix-LN and LNS
    **{name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
    "architectures": ["LLaMAForCausalLM"],
    "model_type": "llama",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": -1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_sequence_length": 24,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "vocab_size": 32000,
}


@pytest.fixture
def settings(flags: Callable[..., list[str]], tmp_path: Path) -> Callable[..., RunConfig]:
    """Runs on documents of a few tokens, so that every batch has end tokens."""
    (tmp_path / "short.txt").write_text("\n".join(f"the cat {number} sees" for number in range(300)))
    short = {
        "data__source": tmp_path / "short.txt",
        "data__text_unit": "line",
        "data__tokenizer": "bpe:270",
        "eval__blocks": "all",
    }
    return lambda **overrides: parse(flags(**short, **overrides), prog="test")


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        PAPER,
        {"model_type": "llama", **SMALL},
        {"model_type": "llama", **SMALL, "pad_token_id": 0, "eos_token_id": [0, 5]},
        {"model_type": "olmo", **SMALL},
        {"model_type": "gemma", **SMALL, "head_dim": 16},
    ],
    ids=["paper", "no ids", "pad is end", "olmo", "gemma"],
)
def test_what_is_saved_agrees_and_every_row_learns(
    settings: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any]
) -> None:
    run = settings(model__config=written(tmp_path, content), train__steps=2, optim__warmup=0, checkpoint__every=1)
    assert pretrain(run)
    assert "the vocabulary has the 270 entries of the tokenizer" in capsys.readouterr().out
    before, after = (path_of(Path(run.run_dir), step) for step in (1, 2))
    config = json.loads((after / "config.json").read_text())
    generation = GenerationConfig.from_pretrained(after)
    tokenizer = AutoTokenizer.from_pretrained(after)
    assert config["vocab_size"] == 270 == len(tokenizer)
    assert config["eos_token_id"] == generation.eos_token_id == tokenizer.eos_token_id == 0
    assert config["bos_token_id"] == generation.bos_token_id == tokenizer.bos_token_id == 0
    assert config.get("pad_token_id") is None and generation.pad_token_id == tokenizer.pad_token_id
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype="float32") for folder in (before, after)]
    assert models[1].get_input_embeddings().padding_idx is None
    moved = (models[1].get_input_embeddings().weight - models[0].get_input_embeddings().weight).abs().amax(1)
    seen = [tokenizer.eos_token_id, *tokenizer("the cat").input_ids]
    assert (moved[seen] > 1e-6).all(), moved[seen]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_default_configs_build_with_a_small_vocabulary(
    settings: Callable[..., RunConfig], tmp_path: Path, family: str
) -> None:
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2} if family == "gpt2" else SMALL
    experts = {"num_experts": 4, "num_local_experts": 4} if "moe" in family or "mixtral" in family else {}
    sizes = {"moe_intermediate_size": 32, "head_dim": 16, "use_parallel_residual": False} | experts
    run = settings(model__config=written(tmp_path, {"model_type": family, **small, "num_hidden_layers": 2, **sizes}))
    with pytest.warns(UserWarning, match="the vocabulary has the 300 entries of the tokenizer"):
        model = build_model(run, tokenizer_size=300, eos_token_id=7)
    assert model.config.vocab_size == 300 == len(model.get_input_embeddings().weight)
    assert model.config.eos_token_id == 7 and model.get_input_embeddings().padding_idx is None


def test_the_size_of_the_vocabulary(settings: Callable[..., RunConfig], tmp_path: Path) -> None:
    path = written(tmp_path, PAPER)
    kept = build_model(settings(model__config=path, model__vocab_size=32000), tokenizer_size=400, eos_token_id=0)
    assert kept.config.vocab_size == 32000 and kept.get_input_embeddings().padding_idx is None
    kept.save_pretrained(tmp_path / "kept")
    run = settings(model__checkpoint=tmp_path / "kept")
    assert build_model(run, tokenizer_size=400, eos_token_id=0).config.vocab_size == 32000


def test_a_checkpoint_that_names_a_padding_token_learns_its_row(
    settings: Callable[..., RunConfig], tmp_path: Path
) -> None:
    model = build_model(settings(), tokenizer_size=270, eos_token_id=0)
    model.config.pad_token_id = model.generation_config.pad_token_id = 0
    model.save_pretrained(tmp_path / "start")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "start").get_input_embeddings().padding_idx == 0
    run = settings(model__checkpoint=tmp_path / "start", train__steps=2, optim__warmup=0)
    assert pretrain(run)
    after = AutoModelForCausalLM.from_pretrained(path_of(Path(run.run_dir), 2), dtype="float32")
    assert not torch.equal(after.get_input_embeddings().weight[0], model.get_input_embeddings().weight[0])


def test_the_papers_context_is_the_models(settings: Callable[..., RunConfig], tmp_path: Path) -> None:
    path = written(tmp_path, PAPER)
    model = build_model(settings(model__config=path), tokenizer_size=400, eos_token_id=0)
    assert model.config.max_position_embeddings == 24
    with pytest.raises(ConfigError, match=r"--data\.block-length 25: the model's positions end at 24"):
        build_model(settings(model__config=path, data__block_length=25), tokenizer_size=400, eos_token_id=0)
    both = written(tmp_path, PAPER | {"max_position_embeddings": 64})
    assert (
        build_model(settings(model__config=both), tokenizer_size=9, eos_token_id=0).config.max_position_embeddings == 64
    )


def test_a_config_of_an_encoder_is_blamed_itself(settings: Callable[..., RunConfig], tmp_path: Path) -> None:
    path = written(tmp_path, {"model_type": "bert", **SMALL})
    with pytest.raises(
        ConfigError, match=r"--model\.config .*config\.json: no normalization scheme can be placed .*bert"
    ):
        build_model(settings(model__config=path), tokenizer_size=400, eos_token_id=0)


def test_a_terminal_that_lacks_a_character_ends_nothing(flags: Callable[..., list[str]]) -> None:
    words = flags(name="modèle", train__steps=1, model__preset="tiny-1x32")
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", "pretrain", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "mod\\xe8le" in done.stdout, done.stderr


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(DataError, match=r"no home folder \(no HOME, no entry in passwd\).*--data\.cache-dir"):
        _ = DataConfig().cache_root
    assert DataConfig(cache_dir=str(tmp_path)).cache_root == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DataConfig().cache_root == tmp_path / "depthlab"
    assert DataConfig(source=("~nobody-of-this-name/a.txt",)).source  # and a home of nobody's is no crash
    with pytest.raises(DataError, match="no such file"):
        local_source(DataConfig(source=("~nobody-of-this-name/a.txt",)))
