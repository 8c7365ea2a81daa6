"""`DataConfig` refuses impossible settings by the name of their flag, and imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.data import DataConfig


@pytest.mark.parametrize(
    ("settings", "flag", "said"),
    [
        ({"source": ()}, "--data.source", "builtin"),
        ({"source": (" ",)}, "--data.source", "builtin"),
        ({"field": ""}, "--data.field", "empty"),
        ({"text_unit": "lines"}, "--data.text-unit", "did you mean 'line'"),
        ({"block_length": 0}, "--data.block-length", "at least 1"),
        ({"shuffle_buffer": 0}, "--data.shuffle-buffer", "at least 1"),
        ({"workers": -1}, "--data.workers", "at least 0"),
        ({"heldout_fraction": 0.0}, "--data.heldout-fraction", "between 0 and 1"),
        ({"heldout_fraction": 1.0}, "--data.heldout-fraction", "between 0 and 1"),
        ({"tokenizer": "bpe:256"}, "--data.tokenizer", "at least 257"),
        ({"tokenizer": "bpe:many"}, "--data.tokenizer", "bpe:4096"),
    ],
)
def test_impossible_settings_name_the_flag(settings: dict, flag: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        DataConfig(**settings)
    assert flag in str(caught.value) and said in str(caught.value)


def test_a_source_from_yaml_becomes_a_tuple() -> None:
    for given in ("builtin", ["builtin"]):
        assert DataConfig(source=given) == DataConfig()  # type: ignore[arg-type]


def test_vocabulary_and_names() -> None:
    assert DataConfig(tokenizer="bpe:257").bpe_vocabulary == 257
    assert DataConfig(tokenizer="gpt2").bpe_vocabulary is None


def test_cache_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert DataConfig().cache_root == Path("/somewhere/depthlab")
    assert DataConfig(cache_dir="/elsewhere").cache_root == Path("/elsewhere")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert DataConfig().cache_root == Path.home() / ".cache" / "depthlab"


def test_the_settings_import_nothing_heavy() -> None:
    heavy = "{'torch', 'datasets', 'transformers', 'numpy'}"
    script = f"import sys, lab.data.config; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
