"""Whether a reply is whole: one that was cut off may end within a number, so nothing of it is read."""

from __future__ import annotations

import re

LAID = "laid"
"""How a reply ends whose scores were laid before the model, so that they cannot be cut."""

_OF_ITSELF = re.compile(
    r"(?:stop|eos|eos_token|eos_found|end|ended|end_turn|end_of_turn|stop_sequence|stop_token|complete|completed|finish|"
    rf"finished|done|success|normal|none|null|{LAID})?"
)
_BY_LENGTH = re.compile(r"(?:max_(?:output_|new_)?tokens|max_length|(?:model_)?length|token_limit)")


def cut_off(
    finish: str | None, completion_tokens: int | None, max_tokens: int, *, unclosed: bool = False
) -> str | None:
    """Why a reply is not whole; None where it is.

    Args:
        finish: what the server says of its end; servers spell it in their own ways.
        completion_tokens: as the server counts them; None where nobody does.
        unclosed: it ends within its thoughts.
    """
    said = (finish or "").strip().rpartition(".")[2].lower()
    is_full = completion_tokens is not None and completion_tokens >= max_tokens and said != LAID
    if _BY_LENGTH.fullmatch(said) or is_full:
        return f"it was cut off after {max_tokens} tokens (--max-tokens){', within its thoughts' if unclosed else ''}"
    if not _OF_ITSELF.fullmatch(said):
        return f"it did not end of itself (finish_reason {finish!r})"[:120]
    return "it ends within its thoughts" if unclosed else None
