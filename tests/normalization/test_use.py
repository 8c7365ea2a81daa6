"""A patched model under what people do with models: compile, export, decode, copy, cast, resize, train on."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from transformers import AutoConfig, AutoModelForCausalLM

import normalization
from normalization import families
from normalization.auto import model_class
from tests.normalization import oracle, tiny

FAMILIES = ("llama", "gpt2", "gemma", "olmo2", "mixtral")
WINDOWED = ("mistral", "olmo3")
EVERYTHING = {"layers": "1 deepnorm+lns, 1 peri"}
"""Two layers with every norm and every scale that a plan can have."""

each_family = pytest.mark.parametrize("family", FAMILIES)
each_placement = pytest.mark.parametrize(
    ("family", "scheme"),
    [("llama", scheme) for scheme in tiny.SCHEMES] + [(family, "lns") for family in FAMILIES[1:]],
)


WITH_LOGITS = {"return_dict_in_generate": True, "output_logits": True}


def generate(model: Any, ids: Tensor, **settings: Any) -> Any:
    lengths = {"max_new_tokens": 9, "min_new_tokens": 9, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **({"do_sample": False} | lengths | settings))


def assert_same(found: Any, expected: Any) -> None:
    """The same text, and for the same reasons: a tiny model may well repeat one token whatever it sees."""
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.allclose(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-4)


# -- built without memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "scheme"), [("llama", "mixed"), ("gpt2", "lns"), ("mixtral", "peri")])
def test_materialised_by_accelerate(tmp_path: Path, family: str, scheme: str) -> None:
    """Built empty, filled from sharded files: nothing that a forward needs was made in `__init__`."""
    model = tiny.patched(family, scheme)
    # Accelerate takes a mixture's files as they lie, where transformers would convert them.
    model.save_pretrained(tmp_path, max_shard_size="60KB", save_original_format=False)
    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.tie_weights()
    filled = load_checkpoint_and_dispatch(empty, tmp_path, device_map={"": "cpu"}, strict=True).eval()
    assert torch.equal(tiny.exact_logits(filled), tiny.exact_logits(model))


# -- compiled and exported ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@each_family
def test_compiled_whole_and_once_for_all_lengths(family: str) -> None:
    batches = [tiny.tokens(batch, length) for batch, length in ((2, 5), (2, 11), (3, 16), (3, 7))]
    frames = []
    for model in (
        tiny.stock(family, num_hidden_layers=2),
        tiny.patched(family, "mixed", EVERYTHING, num_hidden_layers=2),
    ):
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
        for ids in batches:
            assert torch.equal(tiny.logits(compiled, ids), tiny.logits(model, ids))
        frames.append(counter.frame_count)
    assert frames[1] <= frames[0], "(stock, patched) graphs"


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_graph_break_that_stock_lacks(family: str) -> None:
    breaks = []
    for model in (
        tiny.stock(family, num_hidden_layers=2),
        tiny.patched(family, "mixed", EVERYTHING, num_hidden_layers=2),
    ):
        torch._dynamo.reset()
        model.train()
        found = torch._dynamo.explain(model)(tiny.tokens(), labels=tiny.tokens(), use_cache=False)
        breaks.append((found.graph_break_count, found.graph_count))
    assert breaks[0] == breaks[1], "(stock, patched)"


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize(
    ("family", "strict"), [*((family, False) for family in FAMILIES), ("llama", True), ("gpt2", True)]
)
def test_exported(family: str, strict: bool) -> None:
    """The stock models of these families export both ways."""
    model = tiny.patched(family, "mixed", EVERYTHING, num_hidden_layers=2)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        model,
        (),
        {"input_ids": tiny.tokens(2, 8), "use_cache": False},
        strict=strict,
        dynamic_shapes={"input_ids": {0: auto, 1: auto}, "use_cache": None},
    )
    for ids in (tiny.tokens(2, 8), tiny.tokens(3, 11)):
        found = program.module()(input_ids=ids, use_cache=False).logits
        assert torch.allclose(found, tiny.logits(model, ids), atol=1e-5)


# -- attention and caches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "scheme"),
    [("llama", scheme) for scheme in tiny.SCHEMES] + [(f, "peri") for f in (*FAMILIES[1:], *WINDOWED)],
)
def test_attention_implementations_agree(family: str, scheme: str) -> None:
    # gpt2 has no flex attention in transformers.
    kinds = ("eager", "sdpa") if family == "gpt2" else ("eager", "sdpa", "flex_attention")
    ids, mask = tiny.tokens(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[0, :4] = 0
    results = []
    for kind in kinds:
        model = tiny.patched(family, scheme, attention=kind)
        assert model.config._attn_implementation == kind
        # Flex attention would be compiled to C++ first, for half a minute.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            padded = model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
            results.append((tiny.logits(model, ids), padded))
    for plain, padded in results[1:]:
        assert torch.allclose(plain, results[0][0], atol=1e-4)
        assert torch.allclose(padded, results[0][1], atol=1e-4)
    assert not torch.allclose(results[0][0][mask.bool()], results[0][1], atol=1e-2), "the mask counts"


@each_placement
def test_a_static_cache(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    ids = tiny.tokens(2, 5)
    cached = generate(model, ids, cache_implementation="static", **WITH_LOGITS)
    assert type(cached.past_key_values).__name__ == "StaticCache"
    assert_same(cached, generate(model, ids, use_cache=False, **WITH_LOGITS))


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("scheme", ["lns", "peri", "mix"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_sliding_window_cache(family: str, scheme: str, cache: str) -> None:
    """The prompt is longer than the window of 4, so that the first decoded token already misses its start."""
    model = tiny.patched(family, scheme)
    ids = tiny.tokens(2, 9)
    cached = generate(model, ids, cache_implementation=cache, **WITH_LOGITS)
    kept = [layer.keys.shape[2] for layer in cached.past_key_values.layers]
    assert min(kept) <= tiny.OWN[family]["sliding_window"] < ids.shape[1]
    assert_same(cached, generate(model, ids, use_cache=False, **WITH_LOGITS))
    wide = tiny.patched(family, scheme, sliding_window=64)
    assert not torch.allclose(tiny.logits(wide, ids), tiny.logits(model, ids), atol=1e-2), "the window counts"


@each_placement
def test_beam_search(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    ids = tiny.tokens(2, 5)
    beams, recomputed = (
        generate(
            model, ids, num_beams=4, num_return_sequences=3, use_cache=use_cache, output_scores=True, **WITH_LOGITS
        )
        for use_cache in (True, False)
    )
    assert torch.equal(beams.sequences, recomputed.sequences)
    assert torch.allclose(beams.sequences_scores, recomputed.sequences_scores, atol=1e-4)
    assert beams.sequences.unique(dim=0).shape[0] == 6


@each_placement
def test_assisted_decoding(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    ids = tiny.tokens(1, 5)
    expected = generate(model, ids, use_cache=False, **WITH_LOGITS)
    # One assistant that is right all the time, and one that is mostly wrong.
    for assistant in (copy.deepcopy(model), tiny.randomize(tiny.stock(family), seed=3)):
        assert_same(generate(model, ids, assistant_model=assistant, **WITH_LOGITS), expected)


# -- changed in memory -------------------------------------------------------------------------------------------------


@each_placement
def test_resized_embeddings(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    expected, known = tiny.logits(model), tiny.SIZES["vocab_size"]
    model.resize_token_embeddings(known + 9, mean_resizing=False)
    found = tiny.logits(model)
    assert found.shape[-1] == known + 9 == model.config.vocab_size
    assert torch.allclose(found[..., :known], expected, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).vocab_size == known + 9
    assert torch.equal(tiny.logits(AutoModelForCausalLM.from_pretrained(tmp_path)), found)


@each_placement
def test_a_copy_is_another_model(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    expected = tiny.logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(tiny.logits(twin), expected)
    assert twin.config is not model.config and twin.config.to_dict() == model.config.to_dict()
    tiny.randomize(twin, seed=5)
    assert torch.equal(tiny.logits(model), expected) and not torch.equal(tiny.logits(twin), expected)


def test_a_pickled_config_says_its_scheme_in_another_process(tmp_path: Path) -> None:
    for family in FAMILIES:
        for scheme in tiny.SCHEMES:
            config = normalization.config(tiny.config(family), scheme, **oracle.NEEDED.get(scheme, {}))
            twin = pickle.loads(pickle.dumps(config))
            assert type(twin) is type(config) and twin.to_dict() == config.to_dict()
            if scheme != tiny.stock_scheme(family):
                (tmp_path / f"{family}-{scheme}").write_bytes(pickle.dumps(config))
    script = """
import pickle, sys
from pathlib import Path
for file in sorted(Path(sys.argv[1]).iterdir()):
    print(file.name, pickle.loads(file.read_bytes()).normalization["scheme"])
"""
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    said = dict(line.split() for line in done.stdout.splitlines() if "-" in line)
    assert said.keys() == {file.name for file in tmp_path.iterdir()}
    assert all(name.endswith(f"-{scheme}") for name, scheme in said.items())


@tiny.each_family
def test_kernels_are_chosen_as_for_the_stock_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no stock model was made before, which transformers remembers: it looks into a class's source."""
    entry = families.FAMILIES[family]
    stock, patched = entry.stock, model_class(entry)
    asked = ("_can_set_attn_implementation", "_can_set_experts_implementation")
    for kind in {*stock.__mro__, *patched.__mro__}:
        for name in asked:
            if f"{name}_cached_value" in vars(kind):
                monkeypatch.delattr(kind, f"{name}_cached_value")
    answers = [getattr(patched, name)() for name in asked]
    assert answers == [getattr(stock, name)() for name in asked]
    assert answers[1] == bool(normalization.experts(tiny.stock(family)))


@each_placement
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02), ("float64", 1e-4)])
def test_cast(family: str, scheme: str, dtype: str, tolerance: float) -> None:
    model = tiny.patched(family, scheme)
    if family == "mixtral":
        model.set_experts_implementation("eager")  # its faster kernel has no float64
    expected = tiny.logits(model)
    kind = getattr(torch, dtype)
    assert model.to(kind) is model
    assert {parameter.dtype for parameter in model.parameters()} == {kind}
    found = tiny.logits(model)
    assert found.dtype == kind
    # The mean: a token of a mixture may be sent to another expert by rounding alone.
    assert (found - expected).abs().mean() < tolerance * expected.abs().mean()


# -- trained on --------------------------------------------------------------------------------------------------------


def gradients(model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    model(tiny.tokens(), labels=tiny.tokens(), use_cache=False).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found


@each_placement
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_after_loading(tmp_path: Path, family: str, scheme: str, reentrant: bool) -> None:
    tiny.patched(family, scheme).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    tiny.layers(model)[2].register_forward_pre_hook(count)
    family_entry = normalization.families.FAMILIES[family]
    getattr(tiny.layers(model)[2], family_entry.mlp).register_forward_pre_hook(count)
    plain = gradients(model)
    assert runs == 2
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    again = gradients(model)
    assert runs == 5, "the layer is entered once more, its MLP twice more"
    for name, gradient in plain.items():
        assert torch.allclose(again[name], gradient, atol=1e-6, rtol=1e-5), name


@each_placement
def test_a_trained_model_is_given_no_other_scheme(tmp_path: Path, family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients(model)
    optimizer.step()
    expected, described = tiny.logits(model.eval()), model.config.to_dict()
    for other in (scheme, "post", "lns"):
        with pytest.raises(ValueError, match=f"already carries the scheme '{scheme}'; .*a fresh one"):
            normalization.apply(model, other)
    assert torch.equal(tiny.logits(model), expected) and model.config.to_dict() == described

    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    if scheme != tiny.stock_scheme(family):
        with pytest.raises(ValueError, match=f"already carries the scheme '{scheme}'"):
            normalization.apply(again, "post")
        with pytest.raises(ValueError, match=f"already carries the scheme '{scheme}'"):
            normalization.config(again.config, "post")
