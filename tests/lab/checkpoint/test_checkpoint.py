from __future__ import annotations

import json

import pytest
import torch
from transformers import LlamaConfig

import normalization
from lab.checkpoint import find, load_model, manifest
from lab.checkpoint.folder import all_steps, begin, clean, finish, partial_of, path_of
from lab.checkpoint.manifest import Manifest
from lab.checkpoint.retention import expired, retain
from lab.config.sections import CheckpointConfig
from lab.errors import RunError


def described(step: int, eval_loss: float | None = None) -> Manifest:
    return Manifest(step, step * 10, "digest", 1, "NO", eval_loss, {})


def write(run_dir, step: int, eval_loss: float | None = None):
    folder = path_of(run_dir, step)
    begin(folder)
    (partial_of(folder) / "weights").write_bytes(bytes(range(200)) * step)
    (partial_of(folder) / "state" / "optimizer").write_bytes(b"o" * step)
    finish(folder, described(step, eval_loss))
    return folder


def test_a_finished_checkpoint_verifies_and_a_partial_one_has_no_name(tmp_path):
    folder = write(tmp_path, 3)
    assert manifest.verify(folder).step == 3
    assert set(manifest.read(folder).files) == {"weights", "state/optimizer"}
    begin(path_of(tmp_path, 6))
    assert all_steps(tmp_path) == [3]
    clean(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000003"]


def damage_content(folder):
    content = bytearray((folder / "weights").read_bytes())
    content[7] ^= 1
    (folder / "weights").write_bytes(content)


DAMAGES = {
    "content": (damage_content, "content of weights has changed"),
    "truncated": (lambda folder: (folder / "weights").write_bytes(b"x"), "weights has 1 bytes"),
    "missing": (lambda folder: (folder / "weights").unlink(), "weights is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "incomplete"),
    "broken manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_recognised_and_the_checkpoint_before_is_used_saying_so(tmp_path, damage):
    good, bad = write(tmp_path, 3), write(tmp_path, 6)
    do, text = DAMAGES[damage]
    do(bad)
    said: list[str] = []
    assert find(tmp_path, "latest", said.append) == good
    assert len(said) == 1 and text in said[0] and str(bad) in said[0]
    with pytest.raises(RunError, match="--resume"):
        find(tmp_path, str(bad), said.append)


def test_nothing_whole_to_go_on_from_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(RunError, match="leave --resume out"):
        find(tmp_path, "latest", print)


def test_retention_keeps_the_last_the_best_and_every_mth():
    kept = [(step, loss) for step, loss in [(10, 3.0), (20, 1.0), (30, 2.0), (40, None), (50, 2.5), (60, 2.4)]]
    last_two = CheckpointConfig(keep_last=2, keep_best=False)
    assert expired(kept, last_two) == [10, 20, 30, 40]
    assert expired(kept, CheckpointConfig(keep_last=2)) == [10, 30, 40]
    assert expired(kept, CheckpointConfig(keep_last=1, keep_every=30)) == [10, 40, 50]
    assert expired(kept, CheckpointConfig(keep_last=None)) == []


def test_retention_deletes_only_what_has_expired(tmp_path):
    for step, loss in [(1, 1.0), (2, 3.0), (3, 2.0)]:
        write(tmp_path, step, loss)
    retain(tmp_path, CheckpointConfig(keep_last=1))
    assert all_steps(tmp_path) == [1, 3]


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )
    model = normalization.from_config(config, "peri")
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_load_model_restores_scheme_and_weights(saved):
    model, folder = saved
    loaded = load_model(folder)
    assert normalization.spec(loaded).scheme == "peri"
    ids = torch.arange(12).view(1, 12)
    assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)


def test_load_model_refuses_weights_that_do_not_fit_the_config(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"missing: model.layers.3"):
        load_model(folder)


def test_load_model_refuses_an_incomplete_checkpoint_of_ours(saved):
    _, folder = saved
    ours = folder.with_name("step-000010")
    folder.rename(ours)
    with pytest.raises(ValueError, match="incomplete"):
        load_model(ours)
