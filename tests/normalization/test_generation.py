"""Decoding: the cache and the padding mask reach attention under every scheme."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.normalization import tiny


def greedy(model: Any, ids: Tensor, **settings: Any) -> Any:
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0} | settings
    return model.generate(ids, do_sample=False, max_new_tokens=4, min_new_tokens=4, **settings)


@tiny.each_family_and_attention
@tiny.each_scheme
def test_cached_decoding_equals_recomputing(family: str, scheme: str, attention: str) -> None:
    model = tiny.patched(family, scheme, attention=attention)
    ids = tiny.tokens(2, 5)
    cached = greedy(model, ids, use_cache=True, return_dict_in_generate=True, output_logits=True)
    recomputed = greedy(model, ids, use_cache=False, return_dict_in_generate=True, output_logits=True)
    assert cached.past_key_values is not None and recomputed.past_key_values is None
    assert torch.equal(cached.sequences, recomputed.sequences)
    assert torch.allclose(torch.stack(cached.logits), torch.stack(recomputed.logits), atol=1e-4)
    assert torch.allclose(torch.stack(cached.logits, 1), tiny.logits(model, cached.sequences)[:, 4:-1], atol=1e-4)


@tiny.each_family_and_attention
@tiny.each_scheme
def test_a_left_padded_batch_equals_single_sequences(family: str, scheme: str, attention: str) -> None:
    model = tiny.patched(family, scheme, attention=attention)
    short, long = tiny.tokens(1, 3, seed=1), tiny.tokens(1, 8, seed=2)
    padding = torch.full((1, 5), 7)  # a real token: only the mask says that it is padding
    batch = torch.cat([torch.cat([padding, short], 1), long])
    mask = torch.ones_like(batch)
    mask[0, :5] = 0
    together = greedy(model, batch, attention_mask=mask)
    assert torch.equal(together[0, 5:], greedy(model, short)[0])
    assert torch.equal(together[1], greedy(model, long)[0])

    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        padded = model(batch, attention_mask=mask, position_ids=positions).logits
    assert torch.allclose(padded[0, 5:], tiny.logits(model, short)[0], atol=1e-4)
    assert torch.allclose(padded[1], tiny.logits(model, long)[0], atol=1e-4)


@tiny.each_family
@tiny.each_scheme
def test_no_token_sees_the_future(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    ids = tiny.tokens(1, 8)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 61
    one, other = tiny.logits(model, ids), tiny.logits(model, changed)
    assert torch.allclose(one[:, :5], other[:, :5], atol=1e-5) and not torch.allclose(one[:, 5], other[:, 5], atol=1e-2)
