"""A checkpoint loads right or fails loudly."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import normalization
from tests.normalization import oracle, tiny


def saved(model: Any, path: Path, **settings: Any) -> Path:
    model.save_pretrained(path, **settings)
    return path


def config_json(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text())


def edit_config(path: Path, **changes: Any) -> None:
    (path / "config.json").write_text(json.dumps(config_json(path) | changes))


@tiny.each_family
@tiny.each_case
def test_reloads_bit_for_bit(tmp_path: Path, family: str, scheme: str, options: dict[str, Any]) -> None:
    model = tiny.patched(family, scheme, options)
    again, info = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path), output_loading_info=True)
    assert not any(info.values()), info
    assert type(again) is type(model)
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    assert normalization.plans(again) == normalization.plans(model)
    assert normalization.spec(again) == normalization.spec(model)

    stored = config_json(tmp_path)
    if scheme == tiny.stock_scheme(family):
        assert stored["model_type"] == family and "normalization" not in stored
    else:
        assert stored["model_type"] == f"depthlab_{family}"
        spec = normalization.spec(model).to_dict()
        assert {name: stored["normalization"][name] for name in spec} == spec
        assert stored["normalization"]["scheme"] == scheme
        assert stored["normalization"]["options"].items() >= options.items()


@tiny.each_family
def test_the_default_of_an_option_is_stored(tmp_path: Path, family: str) -> None:
    saved(tiny.patched(family, "mix"), tmp_path)
    assert config_json(tmp_path)["normalization"]["options"] == {"alpha": 0.25, "post_layers": None}


@tiny.each_representative
@tiny.each_scheme
def test_reloads_from_shards(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    saved(model, tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(tiny.exact_logits(AutoModelForCausalLM.from_pretrained(tmp_path)), tiny.exact_logits(model))


@tiny.each_representative
@tiny.each_scheme
def test_reloads_in_bfloat16(tmp_path: Path, family: str, scheme: str) -> None:
    # Not model.bfloat16(), which rounds the rotary table too; a loaded model has that in float32.
    model = tiny.patched(family, scheme)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    again = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path))
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    wide = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert torch.equal(tiny.exact_logits(wide), tiny.exact_logits(model.float()))


@tiny.each_representative
@tiny.each_scheme
def test_reloads_onto_a_device_map(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    again = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path), device_map="cpu", low_cpu_mem_usage=True)
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))


@tiny.each_family
@pytest.mark.parametrize("scheme", ["post", "deepnorm"])
def test_reloads_without_the_final_norm(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme, final_norm=False)
    again, info = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path), output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    assert normalization.spec(again).final_norm is False


@tiny.each_representative
def test_same_parameter_names_reload_as_what_they_are(tmp_path: Path, family: str) -> None:
    """`strict=True` cannot tell these checkpoints apart, so the config must."""
    outputs = {}
    for scheme in ("pre", "post", "lns", "deepnorm", "mix", "out"):
        model = tiny.patched(family, scheme)
        assert model.state_dict().keys() == tiny.stock(family).state_dict().keys()
        again = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path / scheme))
        outputs[scheme] = tiny.logits(again)
    schemes = list(outputs)
    for i, one in enumerate(schemes):
        for other in schemes[:i]:
            assert (outputs[one] - outputs[other]).abs().max() > 1e-2, (one, other)


@tiny.each_family
def test_a_checkpoint_of_the_stock_scheme_is_a_stock_checkpoint(tmp_path: Path, family: str) -> None:
    model = tiny.patched(family, tiny.stock_scheme(family))
    again = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path))
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    assert type(again) is type(tiny.stock(family))
    assert not isinstance(tiny.layers(again)[0], normalization.layers.PatchedLayer)


def test_fails_where_normalization_is_not_imported(tmp_path: Path) -> None:
    """In a process of its own: every scheme's checkpoint is refused, never loaded as a stock model. A pickled
    model, which names our module, works there without any import."""
    pairs = {("llama", scheme) for scheme in tiny.SCHEMES}
    pairs |= {(family, scheme) for family in tiny.FAMILIES for scheme in ("pre", "out")}
    for family, scheme in pairs:
        model = tiny.patched(family, scheme, num_hidden_layers=2)
        folder = saved(model, tmp_path / "models" / f"{family}-{scheme}")
        (folder / "model.pickle").write_bytes(pickle.dumps(model))
        torch.save(tiny.logits(model), folder / "logits.pt")
    script = """
import json, pickle, sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
result = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        AutoModelForCausalLM.from_pretrained(folder)
        result[folder.name] = "loaded"
    except (ValueError, KeyError) as error:
        result[folder.name] = str(error)
Path(sys.argv[2]).write_text(json.dumps(result))
assert "normalization" not in sys.modules
ids = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(0))
for folder in sorted(Path(sys.argv[1]).iterdir()):
    model = pickle.loads((folder / "model.pickle").read_bytes())
    assert torch.equal(model(ids, use_cache=False).logits, torch.load(folder / "logits.pt")), folder
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "models"), str(tmp_path / "result.json")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    for name, outcome in json.loads((tmp_path / "result.json").read_text()).items():
        family, scheme = name.split("-")
        if scheme == tiny.stock_scheme(family):
            assert outcome == "loaded", name
        else:
            assert "depthlab" in outcome and "install" in outcome, (name, outcome)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"scheme": "mox", "options": {}, "final_norm": True}, "did you mean 'mix'"),
        ({"scheme": "mix", "options": {"alhpa": 0.5}, "final_norm": True}, "no option 'alhpa'"),
        ({"scheme": "mix", "options": {"post_layers": 6}, "final_norm": True}, "0 <= post_layers <= 5"),
        ({"scheme": "lns", "options": {}, "final_norm": False}, "final_norm=False"),
        ({"scheme": "lns", "options": {}, "final_norm": True, "rotation": 3}, "newer depthlab"),
        ({"options": {}}, "must hold scheme"),
        (None, "must name its scheme"),
        ("lns", "normalization"),
    ],
)
@tiny.each_family
def test_a_config_that_says_what_we_do_not_know_is_refused(
    tmp_path: Path, family: str, stored: Any, message: str
) -> None:
    saved(tiny.patched(family, "lns"), tmp_path)
    edit_config(tmp_path, normalization=stored)
    # A bad scheme stops the config already; only a config without any may be made, as transformers itself does.
    load = AutoModelForCausalLM if stored is None else AutoConfig
    with pytest.raises((ValueError, TypeError), match=message):
        load.from_pretrained(tmp_path)


@tiny.each_family
def test_a_config_without_the_field_is_refused(tmp_path: Path, family: str) -> None:
    saved(tiny.patched(family, "lns"), tmp_path)
    stored = config_json(tmp_path)
    del stored["normalization"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="must name its scheme"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@tiny.each_family
@tiny.each_scheme
def test_a_config_alone_round_trips(tmp_path: Path, family: str, scheme: str) -> None:
    config = normalization.config(tiny.config(family), scheme, **oracle.NEEDED.get(scheme, {}))
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is type(config)
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()
    model = AutoModelForCausalLM.from_config(again)
    assert normalization.spec(model).scheme == scheme


@tiny.each_family
def test_the_tokenizer_beside_it_loads(tmp_path: Path, family: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"the": 0, "norm": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    saved(tiny.patched(family, "peri"), tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("the norm")["input_ids"] == [0, 1]


@tiny.each_family
@tiny.each_scheme
def test_a_stock_checkpoint_loads_into_a_scheme(tmp_path: Path, family: str, scheme: str) -> None:
    stock = tiny.stock(family)
    saved(stock, tmp_path)
    needed = oracle.NEEDED.get(scheme, {})
    model = normalization.from_pretrained(str(tmp_path), scheme, **needed).eval()
    expected = normalization.apply(stock, scheme, **needed)
    assert type(model) is type(expected)
    assert torch.equal(tiny.exact_logits(model), tiny.exact_logits(expected))
    settings: Any = {"dtype": "bfloat16", "attn_implementation": "eager"}
    half = normalization.from_pretrained(str(tmp_path), scheme, **settings, **needed)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.config._attn_implementation == "eager"


@tiny.each_family
def test_a_checkpoint_with_a_scheme_is_not_given_another(tmp_path: Path, family: str) -> None:
    saved(tiny.patched(family, "lns"), tmp_path)
    with pytest.raises(ValueError, match="already carries the scheme 'lns'"):
        normalization.from_pretrained(str(tmp_path), "mix")
