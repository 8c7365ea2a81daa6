"""The key: read from its variable, checked, and kept out of every text that is shown or stored."""

from __future__ import annotations

import html
import json
import os
import re
from urllib.parse import quote, quote_plus

from evaluators.errors import ConfigError

_PART = 8
"""A part of a key that is at least so long tells of it; shorter keys are dummies, as `EMPTY` for a local server."""
_WORD = 16
"""A key without a digit that is shorter may be a word, and is masked only where it stands by itself."""


def read_key(variable: str | None) -> str:
    """The key, without blanks around it; empty where there is none.

    Raises:
        ConfigError: it holds what no header can; names the variable and not the key.
    """
    if variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError("--key-env (or key_env of a judge): must be the name of an environment variable, not the key")
    key = os.environ.get(variable, "").strip().strip("\ufeff\u200b") if variable else ""
    for number, sign in enumerate(key, start=1):
        if not "!" <= sign <= "~":
            raise ConfigError(
                f"{variable}: character {number} of the key is none that a key can hold (a blank, a line end, a "
                "typographic quote?); copy the key again"
            )
    return key


class Mask:
    """Writes `***` for a key and its parts, however they are escaped."""

    def __init__(self, key: str) -> None:
        escaped = {key, repr(key)[1:-1], json.dumps(key)[1:-1], quote(key, safe=""), quote_plus(key), html.escape(key)}
        self._forms = escaped | {form.lower() for form in escaped if "%" in form} if len(key) >= _PART else set()
        self._is_word = len(key) < _WORD and not any(sign.isdigit() for sign in key)
        self._parts = {form[at : at + _PART] for form in self._forms for at in range(len(form) - _PART + 1)}

    def __call__(self, text: str) -> str:
        """The text without the key; in one pass."""
        if self._is_word:
            return self._without_words(text)
        shown: list[str] = []
        hidden_to = 0
        for at, sign in enumerate(text):
            if text[at : at + _PART] in self._parts:
                if at >= hidden_to:
                    shown.append("***")
                hidden_to = at + _PART
            elif at >= hidden_to:
                shown.append(sign)
        return "".join(shown)

    def _without_words(self, text: str) -> str:
        for form in self._forms:
            before, *rest = text.split(form)
            for after in rest:
                inside = before[-1:].isalnum() or after[:1].isalnum()
                before += (form if inside else "***") + after
            text = before
        return text
