"""The begin token: before every document, where a model is trained with one."""

from __future__ import annotations

from typing import Any

from lab.data.config import BeginToken
from lab.data.errors import DataError

FAMILIES = ("gemma",)
"""Model types, by how they begin, that are of no use without a begin token, whatever their tokenizer adds."""


def begin_token(tokenizer: Any, wanted: BeginToken, *, flag: str, model_type: str = "") -> int | None:
    """The id of the begin token, or None for none.

    Args:
        tokenizer: of Hugging Face.
        wanted: `auto` is yes where the tokenizer puts one before a text by itself, or the model's family needs it.
        flag: that `wanted` was given with, for the error.
        model_type: of the model's config, where there is a model.

    Raises:
        DataError: `yes`, and the tokenizer has none.
    """
    begin = tokenizer.bos_token_id
    if wanted == "no" or (wanted == "auto" and begin is None):
        return None
    if begin is None:
        raise DataError(f"{flag} yes: the tokenizer {tokenizer.name_or_path} has no begin token (bos_token)")
    if wanted == "yes" or model_type.startswith(FAMILIES) or _adds(tokenizer, begin):
        return int(begin)
    return None


def _adds(tokenizer: Any, begin: int) -> bool:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tokenizer("a")["input_ids"][:1] == [begin] != plain[:1]
