"""Whether a reply is whole: one that was cut off may end within a number, so nothing of it is read."""

from __future__ import annotations

LAID = "laid"
"""How a reply ends whose scores were laid before the model, so that they cannot be cut."""

_OF_ITSELF = frozenset(
    (
        "",
        "stop",
        "eos",
        "eos_token",
        "eos_found",
        "end",
        "ended",
        "end_turn",
        "end_of_turn",
        "stop_sequence",
        "stop_token",
    )
    + ("complete", "completed", "finished", "finish", "done", "success", "normal", "none", "null", LAID)
)
_BY_LENGTH = frozenset(("length", "max_tokens", "max_output_tokens", "model_length", "token_limit", "max_length"))


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
    if said in _BY_LENGTH or is_full:
        return f"it was cut off after {max_tokens} tokens (--max-tokens){', within its thoughts' if unclosed else ''}"
    if said not in _OF_ITSELF:
        return f"it did not end of itself (finish_reason {finish!r})"[:120]
    return "it ends within its thoughts" if unclosed else None
