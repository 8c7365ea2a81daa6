"""Documents of a block that do not attend to each other, whatever computes the attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel


def keep_documents_apart(model: PreTrainedModel) -> RemovableHandle:
    """Tell flash attention where documents begin: at each position 0 of the `position_ids` `(B, T)` of a forward pass.

    The other implementations build their masks from `position_ids` themselves. Transformers 5.23 does that for flash
    attention with a batch of one sequence only, and attends across documents else.

    Args:
        model: a causal LM, before it is compiled or shared among processes.
    """

    def tell(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        positions = kwargs.get("position_ids")
        if positions is None or not str(model.config._attn_implementation).startswith("flash"):
            return None
        return args, kwargs | boundaries(positions)

    return model.register_forward_pre_hook(tell, with_kwargs=True)


def boundaries(position_ids: Tensor) -> dict[str, Any]:
    """What flash attention's kernel for sequences of several lengths needs, of the rows one after the other.

    Args:
        position_ids: `(B, T)`, 0 at the first token of each document and of each row.

    Returns:
        `cu_seq_lens_q` and `_k`: the index of each document's first token and the number of all tokens, int32
        `(documents + 1,)`; `max_length_q` and `_k`: T, which no document exceeds.
    """
    flat = position_ids.flatten()
    first = torch.nonzero(flat == 0).flatten()
    ends = torch.cat([first, first.new_tensor([flat.numel()])]).to(torch.int32)
    longest = position_ids.shape[-1]
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
