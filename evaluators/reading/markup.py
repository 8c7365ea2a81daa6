"""What chat templates would read as the end of a message or the beginning of another."""

from __future__ import annotations

import re

CHAT_MARKUP = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:\uff5c)[^<>\n]{1,40}(?:\uff5c)>",
    re.IGNORECASE,
)


def has_chat_markup(text: str) -> bool:
    """Whether a text holds any of it."""
    return CHAT_MARKUP.search(text) is not None
