"""Every way in which people load models: a checkpoint with a scheme loads right, or fails and says what is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    pipeline,
)

import normalization
from tests.normalization import tiny

FAMILIES = ("llama", "gpt2", "gemma", "olmo2", "mixtral")
each_family = pytest.mark.parametrize("family", FAMILIES)
each_placement = pytest.mark.parametrize(
    ("family", "scheme"),
    [("llama", scheme) for scheme in tiny.SCHEMES] + [(f, s) for f in FAMILIES[1:] for s in ("lns", "peri")],
)
"""Every scheme in one family; in the others one that scales and one that adds norms."""


def other_schemes(family: str) -> list[str]:
    """All that are no stock checkpoint."""
    return [scheme for scheme in tiny.SCHEMES if scheme != tiny.stock_scheme(family)]


def is_stock(family: str, scheme: str) -> bool:
    return scheme == tiny.stock_scheme(family)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def write(folder: Path, content: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def rounded(model: Any, dtype: torch.dtype) -> Any:
    """As a loaded model is: its parameters in `dtype`, its rotary table in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def words(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of as many words as the tiny models have tokens: w0 w1 ..."""
    vocabulary = {f"w{number}": number for number in range(tiny.SIZES["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", eos_token="w2")
    fast.save_pretrained(folder)
    return fast


# -- right -------------------------------------------------------------------------------------------------------------


@each_placement
def test_shards_onto_any_device_map(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for settings in (
        {},
        {"device_map": "auto"},
        {"device_map": "cpu"},
        {"low_cpu_mem_usage": True},
        {"device_map": {"": "cpu"}, "low_cpu_mem_usage": True, "dtype": "auto"},
    ):
        again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, **settings)
        assert not any(report.values()), (settings, report)
        assert normalization.plans(again) == normalization.plans(model)
        assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model)), settings


@each_placement
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_any_dtype(tmp_path: Path, family: str, scheme: str, dtype: str) -> None:
    model = tiny.patched(family, scheme)
    model.save_pretrained(tmp_path / "wide")
    kind = getattr(torch, dtype)
    rounded(model, kind).save_pretrained(tmp_path / "own")
    expected = tiny.exact_logits(model)
    for folder, wanted in (("wide", dtype), ("wide", kind), ("own", "auto")):
        again = AutoModelForCausalLM.from_pretrained(tmp_path / folder, dtype=wanted)
        assert {parameter.dtype for parameter in again.parameters()} == {kind}, (folder, wanted)
        assert torch.equal(tiny.exact_logits(again), expected), (folder, wanted)


@each_family
def test_a_subfolder(tmp_path: Path, family: str) -> None:
    model = tiny.patched(family, "mix", {"post_layers": 2})
    model.save_pretrained(tmp_path / "last")
    assert AutoConfig.from_pretrained(tmp_path, subfolder="last").normalization == model.config.normalization
    again = AutoModelForCausalLM.from_pretrained(tmp_path, subfolder="last")
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    with pytest.raises(Exception, match="'mix' and need .*import normalization"):
        type(tiny.stock(family)).from_pretrained(tmp_path, subfolder="last")


@each_placement
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_config_alone(tmp_path: Path, family: str, scheme: str, use_cache: bool) -> None:
    model = tiny.patched(family, scheme, use_cache=use_cache)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.use_cache is use_cache and config.vocab_size == tiny.SIZES["vocab_size"]
    assert not hasattr(config, "auto_map")
    if not is_stock(family, scheme):
        assert config.normalization == normalization.spec(model).to_dict()
        assert config.normalization["scheme"] == scheme
    with torch.device("meta"):
        assert normalization.plans(AutoModelForCausalLM.from_config(config)) == normalization.plans(model)


@each_family
def test_without_a_generation_config(tmp_path: Path, family: str) -> None:
    """transformers then takes every field of config.json for one."""
    tiny.patched(family, "lns", use_cache=False).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.generation_config.use_cache is False
    assert GenerationConfig.from_pretrained(tmp_path, "config.json").use_cache is False
    again.generate(tiny.tokens(1, 3), max_new_tokens=2, pad_token_id=0)


@each_family
@pytest.mark.parametrize("scheme", ["lns", "peri", "mix"])
def test_a_pipeline(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    model.save_pretrained(tmp_path)
    tokenizer = words(tmp_path)
    generator = pipeline("text-generation", model=str(tmp_path))
    assert normalization.plans(generator.model) == normalization.plans(model)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(torch.tensor([[3, 1, 4]]), **settings)[0]
    (answer,) = generator("w3 w1 w4", **settings)
    assert answer["generated_text"].replace(" ", "") == "".join(tokenizer.convert_ids_to_tokens(expected))


@each_family
@pytest.mark.parametrize("scheme", ["lns", "post", "peri"])
def test_peft_on_top(tmp_path: Path, family: str, scheme: str) -> None:
    tiny.patched(family, scheme).save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), settings)
    before = tiny.logits(tuned)
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves only the half of an adapter that starts at zero
        optimizer.zero_grad()
        tuned(tiny.tokens(), labels=tiny.tokens()).loss.backward()
        optimizer.step()
    tuned.eval().save_pretrained(tmp_path / "adapter")
    assert (tiny.logits(tuned) - before).abs().max() > 1e-3
    assert not list((tmp_path / "adapter").glob("*.bin"))

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert torch.equal(tiny.logits(base), before)
    assert torch.equal(tiny.logits(peft.PeftModel.from_pretrained(base, tmp_path / "adapter")), tiny.logits(tuned))
    found = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(tiny.logits(found), tiny.logits(tuned))

    merged = tuned.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert normalization.spec(again).scheme == scheme
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(merged))
    assert torch.allclose(tiny.logits(merged), tiny.logits(found), atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "olmo2"])
@pytest.mark.parametrize("bits", [8, 4])
def test_quantised(tmp_path: Path, family: str, bits: int) -> None:
    """bitsandbytes replaces the linear maps of a layer, and nothing that a scheme moves."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "num_key_value_heads": 4}
    model = tiny.patched(family, "peri", **sizes)
    model.save_pretrained(tmp_path / "own")
    stock = tiny.stock(family, **sizes)
    stock.load_state_dict(model.state_dict(), strict=False)
    stock.save_pretrained(tmp_path / "stock")

    def quantised(folder: str) -> Any:
        settings = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
        return AutoModelForCausalLM.from_pretrained(tmp_path / folder, quantization_config=settings, dtype="float32")

    found = quantised("own")
    kinds = [type(module).__name__ for module in tiny.layers(found).modules()]
    assert kinds.count("Linear8bitLt" if bits == 8 else "Linear4bit") >= 4 * tiny.LAYERS
    assert normalization.plans(found) == normalization.plans(model)
    # The same as to quantise first and place the scheme then.
    placed = normalization.apply(quantised("stock"), "peri")
    new_norms = {name: value for name, value in model.state_dict().items() if "_out." in name or "_in." in name}
    assert len(new_norms) >= 2 * tiny.LAYERS and not placed.load_state_dict(new_norms, strict=False).unexpected_keys
    assert torch.equal(tiny.exact_logits(found), tiny.exact_logits(placed))
    if bits == 8:
        assert (tiny.logits(found) - tiny.logits(model)).abs().max() < 0.1 * tiny.logits(model).abs().max()
        found.save_pretrained(tmp_path / "small")
        assert torch.equal(
            tiny.exact_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "small")), tiny.exact_logits(found)
        )


@each_placement
def test_a_loaded_checkpoint_is_saved_and_loaded_again(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    model.save_pretrained(tmp_path / "1")
    AutoModelForCausalLM.from_pretrained(tmp_path / "1").save_pretrained(tmp_path / "2")
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "2", output_loading_info=True)
    assert not any(report.values())
    assert read(tmp_path / "1") == read(tmp_path / "2")
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_moe", "gpt_neox"])
@pytest.mark.parametrize("scheme", ["lns", "peri"])
def test_from_stock_files_to_a_scheme_and_back(tmp_path: Path, family: str, scheme: str) -> None:
    """In files a mixture of experts lies expert by expert, and GPT-NeoX's head has another name."""
    stock = tiny.stock(family)
    stock.save_pretrained(tmp_path / "stock")
    expected = tiny.exact_logits(normalization.apply(stock, scheme))
    for number, model in enumerate(
        (
            normalization.from_pretrained(str(tmp_path / "stock"), scheme),
            normalization.apply(AutoModelForCausalLM.from_pretrained(tmp_path / "stock"), scheme),
        )
    ):
        assert model.config.model_type == f"depthlab_{family}"
        assert torch.equal(tiny.exact_logits(model.eval()), expected)
        model.save_pretrained(tmp_path / str(number))
        again, report = AutoModelForCausalLM.from_pretrained(tmp_path / str(number), output_loading_info=True)
        assert not any(report.values()), report
        assert torch.equal(tiny.exact_logits(again), expected)
        assert names(tmp_path / "stock") <= names(tmp_path / str(number)), "written as the stock model is"


@each_family
def test_an_older_config(tmp_path: Path, family: str) -> None:
    """Without the scheme's options, without the guard, without `final_norm`."""
    model = tiny.patched(family, "mix")
    model.save_pretrained(tmp_path)
    content = read(tmp_path)
    del content["auto_map"]
    key = "n_embd" if family == "gpt2" else "hidden_size"
    assert isinstance(content[key], str), "it was guarded"
    content |= {key: content["normalization"][key], "normalization": {"scheme": "mix"}}
    write(tmp_path, content)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert normalization.spec(again) == normalization.spec(model)
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    again.save_pretrained(tmp_path / "new")
    assert isinstance(read(tmp_path / "new")[key], str), "saved again, it is guarded"


# -- or not at all -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "mox"}, "unknown normalization scheme 'mox' .did you mean 'mix'"),
        ({"options": {"alhpa": 0.5}}, "scheme 'mix' has no option 'alhpa'; its options: alpha, post_layers"),
        ({"options": {"post_layers": 9}}, "0 <= post_layers <= 5"),
        ({"rotation": 3}, "rotation.*newer depthlab"),
    ],
)
@each_family
def test_a_config_from_elsewhere(tmp_path: Path, family: str, change: dict[str, Any], message: str) -> None:
    tiny.patched(family, "mix").save_pretrained(tmp_path)
    content = read(tmp_path)
    content["normalization"] |= change
    write(tmp_path, content)
    for load in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises(ValueError, match=message):
            load.from_pretrained(tmp_path)


def stock_classes(family: str) -> list[Any]:
    stock = type(tiny.stock(family))
    stem = stock.__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    names = [f"{stem}Model", f"{stem}ForSequenceClassification", f"{stem}ForTokenClassification"]
    return [stock, stock.config_class, *(getattr(transformers, name) for name in names if hasattr(transformers, name))]


@each_placement
def test_a_stock_class_refuses(tmp_path: Path, family: str, scheme: str) -> None:
    tiny.patched(family, scheme, num_hidden_layers=3).save_pretrained(tmp_path)
    assert len(stock_classes(family)) >= 3
    for kind in stock_classes(family):
        if is_stock(family, scheme):
            kind.from_pretrained(tmp_path)
            continue
        with pytest.raises(Exception) as caught:
            kind.from_pretrained(tmp_path)
        for part in (f"the normalization scheme '{scheme}'", "the Python package depthlab", "`import normalization`"):
            assert part in str(caught.value), (kind, part)


@each_family
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_a_head_that_we_do_not_have_is_refused(tmp_path: Path, family: str, auto: Any) -> None:
    for scheme in other_schemes(family):
        model = tiny.patched(family, scheme, num_hidden_layers=3)
        model.save_pretrained(tmp_path / scheme)
        with pytest.raises(ValueError, match=rf"Unrecognized configuration class .*{type(model.config).__name__}"):
            auto.from_pretrained(tmp_path / scheme)
        with pytest.raises(ValueError, match=rf"Unrecognized configuration class .*{type(model.config).__name__}"):
            auto.from_config(model.config)


def test_without_normalization_it_says_what_to_install(tmp_path: Path) -> None:
    cases = [(family, scheme) for family in FAMILIES for scheme in other_schemes(family)]
    cases += [(family, "lns") for family in tiny.FAMILIES if family not in FAMILIES]
    for family, scheme in cases:
        folder = tmp_path / f"{family}-{scheme}"
        tiny.patched(family, scheme, num_hidden_layers=3, eos_token_id=2).save_pretrained(folder)
        words(folder)
    script = """
import json, sys, transformers
from pathlib import Path
from transformers import AutoTokenizer, pipeline
results = []
for folder in sorted(Path(sys.argv[1]).iterdir()):
    assert AutoTokenizer.from_pretrained(folder)("w3 w1")["input_ids"] == [3, 1]
    loads = {name: getattr(transformers, name).from_pretrained for name in
             ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")}
    loads["trusting"] = lambda path: transformers.AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    loads["pipeline"] = lambda path: pipeline("text-generation", model=str(path))
    for name, load in loads.items():
        try:
            results.append([folder.name, name, "LOADED " + type(load(folder)).__name__])
        except Exception as error:
            results.append([folder.name, name, str(error)])
assert "normalization" not in sys.modules
print("\\n" + json.dumps(results))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 6 * len(list(tmp_path.iterdir()))
    for folder, name, message in results:
        assert "the Python package depthlab" in message and "`import normalization`" in message, (folder, name, message)


# -- safetensors only --------------------------------------------------------------------------------------------------


@each_placement
def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr("pickle.load", forbidden)
    monkeypatch.setattr("pickle.loads", forbidden)
    assert torch.equal(tiny.exact_logits(AutoModelForCausalLM.from_pretrained(tmp_path)), tiny.exact_logits(model))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_stock_class_with_our_config_is_found_out(tmp_path: Path, family: str) -> None:
    """It computes the stock model: neither may it claim the scheme, nor be saved as if it had it."""
    config = normalization.config(tiny.config(family), "post")
    model = normalization.families.FAMILIES[family].stock(config)
    with pytest.raises(ValueError, match="layers do not follow it"):
        normalization.describe(model)
    with pytest.raises(ValueError, match="does not follow the normalization scheme"):
        model.save_pretrained(tmp_path)
