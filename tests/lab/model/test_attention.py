"""Isolated documents are computed as if each were alone, by every attention implementation and for any batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers.integrations.flash_attention
from transformers import AutoModelForCausalLM, modeling_flash_attention_utils

import normalization
from lab.data.packing import make_batch
from lab.model.attention import boundaries, keep_documents_apart
from lab.training.run import pretrain
from tests.normalization import tiny

END, LENGTH = 7, 14


def batch(rows=3):
    """Documents of several lengths, one of a single token, one over a whole row; every row begins anew."""
    tokens = np.random.default_rng(0).integers(8, 61, (rows, LENGTH + 1))
    for row, ends in enumerate(([3, 4, 9], [], [12])[:rows]):
        tokens[row, ends] = END
    return make_batch(tokens, end=END, isolate=True)


def each_alone(model, ids, positions):
    """Logits of every document in a forward pass of its own."""
    logits = torch.zeros(*ids.shape, model.config.vocab_size)
    for row in range(len(ids)):
        starts = [*torch.nonzero(positions[row] == 0).flatten().tolist(), ids.shape[1]]
        for start, end in pairwise(starts):
            logits[row, start:end] = model(input_ids=ids[row : row + 1, start:end], use_cache=False).logits[0]
    return logits


def varlen(calls):
    """flash_attn_varlen_func as its documentation defines it, in plain PyTorch."""

    def attend(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, softmax_scale, **options):
        calls.append(cu_seqlens_q.tolist())
        assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k) and causal
        assert int(cu_seqlens_q.diff().max()) <= max_seqlen_q == max_seqlen_k
        left = options.get("window_size", (-1, -1))[0]
        out = torch.empty_like(q)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        for start, end in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
            scores = torch.einsum("qhd,khd->hqk", q[start:end], k[start:end]) * softmax_scale
            distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
            hidden = (distance < 0) | ((distance > left) if left >= 0 else torch.zeros_like(distance, dtype=torch.bool))
            out[start:end] = torch.einsum(
                "hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v[start:end]
            )
        return out

    return attend


def plain(*args, **options):
    pytest.fail("the kernel that knows no documents was called")


@pytest.fixture
def flash(monkeypatch):
    """A CPU on which flash attention is installed."""
    calls: list[list[int]] = []
    module, kernel = modeling_flash_attention_utils, varlen(calls)
    scale = lambda q, options: options | {"softmax_scale": options["softmax_scale"] or q.shape[-1] ** -0.5}  # noqa: E731
    wrapped = lambda q, k, v, **options: kernel(q, k, v, **scale(q, options))  # noqa: E731
    names = ["causal", "softmax_scale", "dropout_p", "window_size", "max_seqlen_q", "max_seqlen_k"]
    supports = dict.fromkeys([*names, "deterministic", "softcap", "s_aux", "learnable_sink", "block_table"], False)
    supports |= dict.fromkeys(["page_table", "cache_seqlens"], False)
    supports |= dict.fromkeys(["window_size", "max_seqlen_q", "max_seqlen_k"], True)

    def process(**options):
        return module._process_flash_attention_kwargs(**options, supports_mapping=supports)

    functions = ((plain, wrapped, None, None, None), (process, dict))
    monkeypatch.setattr(module, "lazy_import_flash_attention", lambda *args, **options: functions)
    monkeypatch.setattr(transformers.integrations.flash_attention, "get_target_dtype", lambda query, module: None)
    monkeypatch.setattr(module, "fa_peft_integration_check", lambda q, k, v, target=None: (q, k, v))
    return calls


def model_of(family, scheme="pre"):
    torch.manual_seed(0)
    config = tiny.config(family)
    config._attn_implementation = "eager"
    if scheme != "pre" or normalization.families.FAMILIES[family].stock_scheme != "pre":
        return AutoModelForCausalLM.from_config(config).eval()
    return AutoModelForCausalLM.from_config(normalization.config(config, scheme)).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
@tiny.each_family
@torch.no_grad()
def test_every_document_is_as_if_alone(family, attention, flash):
    model = model_of(family)
    found = batch()
    expected = each_alone(model, found["input_ids"], found["position_ids"])
    keep_documents_apart(model)
    model.config._attn_implementation = attention
    inputs = {name: found[name] for name in ("input_ids", "position_ids")}
    torch.testing.assert_close(model(**inputs, use_cache=False).logits, expected, rtol=1e-4, atol=1e-5)
    if attention.startswith("flash"):
        layers = model.config.num_hidden_layers
        assert flash == [[0, 4, 5, 10, 14, 28, 41, 42]] * layers


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma", "qwen3_moe"])
@torch.no_grad()
def test_flex_attention_keeps_them_apart_too(family):
    model = model_of(family)
    found = batch()
    expected = each_alone(model, found["input_ids"], found["position_ids"])
    model.config._attn_implementation = "flex_attention"
    inputs = {name: found[name] for name in ("input_ids", "position_ids")}
    with torch.compiler.set_stance("force_eager"):
        logits = model(**inputs, use_cache=False).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_batch_without_positions_is_left_alone(flash, monkeypatch):
    model = model_of("llama")
    keep_documents_apart(model)
    ids = batch()["input_ids"]
    expected = model(input_ids=ids, use_cache=False).logits
    calls = []

    def causal(q, k, v, **options):
        calls.append(q.shape)
        groups = q.shape[2] // k.shape[2]
        q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    functions, processing = modeling_flash_attention_utils.lazy_import_flash_attention("flash_attention_2")
    monkeypatch.setattr(
        modeling_flash_attention_utils,
        "lazy_import_flash_attention",
        lambda *args, **options: ((causal, *functions[1:]), processing),
    )
    model.config._attn_implementation = "flash_attention_2"
    torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == model.config.num_hidden_layers and not flash


def test_boundaries_of_one_row_and_of_many():
    assert boundaries(torch.tensor([[0, 1, 0, 1, 2]]))["cu_seq_lens_q"].tolist() == [0, 2, 5]
    assert boundaries(torch.tensor([[0, 1], [0, 0], [0, 1]]))["cu_seq_lens_k"].tolist() == [0, 2, 3, 4, 6]


def test_a_run_with_isolated_documents_and_flash_attention_trains_and_evaluates_as_with_eager(
    settings, flash, monkeypatch, tmp_path
):
    """The whole way of the data: micro-batches, evaluation, variances."""
    from lab.runfolder import metrics
    from lab.training import learner

    common = {"data__isolate_documents": True, "train__micro_batch": 2, "train__steps": 3}
    assert pretrain(settings("eager", model__attention="eager", **common))
    prepare = learner.build_optimizer

    def as_on_a_gpu(model, *args):
        model.config._attn_implementation = "flash_attention_2"
        return prepare(model, *args)

    monkeypatch.setattr(learner, "build_optimizer", as_on_a_gpu)
    assert pretrain(settings("flash", model__attention="eager", **common))
    assert flash

    def losses(name):
        records = metrics.read(tmp_path / name, say=pytest.fail)
        return [record[key] for record in records for key in ("train/loss", "eval/loss") if key in record]

    assert losses("flash") == pytest.approx(losses("eager"), rel=1e-4)
