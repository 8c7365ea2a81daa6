"""What a model thinks before it answers is split off here, before anything reads its reply.

Thoughts stand in the text between tags (`<think>`, `[THINK]`, ...), in channels (`analysis`, then `final`), before a
closing tag whose opening was part of the prompt, or in fields that a server keeps for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_NAMES = (
    r"(?:seed:|ant)?think(?:ing)?(?:_process)?|thoughts?|thought_process|reasoning|reflection|analysis|scratchpad|"
    r"inner_monologue|internal_monologue|chain_of_thought|cot"
)
# Of harmony (gpt-oss) and of Gemma: <|channel|>analysis<|message|> ... <|channel|>final<|message|>, <|channel>thought.
_CHANNEL = r"(?:<\|start\|>\w{0,20})?<\|?channel\|?>\s?"
_MESSAGE = r"[^<>\n]{0,60}(?:<\|constrain\|>\w{0,20})?(?:<\|message\|>|\n|$)"
_TAG = re.compile(
    rf"(?=<[^<\s]|\[|◁)(?:(?P<open><(?:{_NAMES})(?:\s[^<>\n]{{0,60}})?>|\[think(?:ing)?\]|◁think(?:ing)?▷|<\|begin_of_thought\|>|"
    rf"<\|start_thinking\|>|<unused94>(?:thought)?|{_CHANNEL}(?:analysis|commentary|thought){_MESSAGE})"
    rf"|(?P<close></(?:{_NAMES})\s?>|\[/think(?:ing)?\]|◁/think(?:ing)?▷|<\|end_of_thought\|>|<\|end_thinking\|>|"
    rf"<unused95>|<channel\|>|\[begin final response\]|(?:<\|end\|>\s?)?{_CHANNEL}final{_MESSAGE})"
    r"|(?P<end><\|end\|>))",
    re.IGNORECASE,
)
# Without its special tokens a channel's reply reads "analysisThe user asks ... assistantfinalScore ...".
_BARE_CHANNEL = re.compile(r"\s{0,20}(?:analysis|commentary)(?=[A-Z])")
_BARE_FINAL = "assistantfinal"
_TOLD = (
    (re.compile(r"\s{0,20}here(?: i|')s my thought process:", re.I), re.compile(r"here(?: i|')s my response:", re.I)),
)
_MARKS = "<[◁"
"""One of them begins each tag and each token."""
_QUOTES = "\"'`“”‘’«»「」『』„"
_END_TOKENS = re.compile(
    r"(?:\s{0,20}(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<\uff5c[^<>\s]{1,40}\uff5c>|\[end final response\]))+"
    r"\s*\Z",
    re.IGNORECASE,
)
_LONGEST_END = 400
_SURROGATES = re.compile("[\ud800-\udfff]")
_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


class Split(NamedTuple):
    """A reply without its thoughts, and they."""

    text: str
    thoughts: str
    unclosed: bool
    """The reply ends within its thoughts: it was cut off, whatever stands before them."""


def split(text: str) -> Split:
    """What is said and what is only thought; half characters (lone surrogates) become U+FFFD in both.

    A tag that stands in quotation marks is spoken of and splits nothing. Any closing tag ends what any opening tag has
    begun; one that nothing has opened makes everything before it a thought. Time is linear in the text.
    """
    text = whole(text)
    said: list[str] = []
    thoughts: list[str] = []
    position = 0
    inside = False
    if (opened := _told(text)) is not None:
        begin, position = opened
        thoughts.append(text[begin[0] : begin[1]])
    elif (bare := _BARE_CHANNEL.match(text)) is not None:
        final = text.rfind(_BARE_FINAL)
        thoughts.append(text[bare.end() : final if final >= 0 else None])
        if final < 0:
            return Split("", thoughts[0].strip(), True)
        position = final + len(_BARE_FINAL)
    for tag in _TAG.finditer(text, position) if any(mark in text for mark in _MARKS) else ():
        if _is_quoted(text, tag) or (tag["end"] and not inside):
            continue
        if tag["open"]:
            if not inside:
                said.append(text[position : tag.start()])
                position = tag.end()
            inside = True
        else:
            if not inside:
                said.append(text[position : tag.start()])
                thoughts += said
                said = []
            else:
                thoughts.append(text[position : tag.start()])
            position = tag.end()
            inside = False
    (thoughts if inside else said).append(text[position:])
    if not thoughts:
        return Split(_without_end(text), "", False)
    kept = "\n".join(filter(None, (piece.strip() for piece in thoughts)))
    return Split(_without_end("".join(said)).strip(), kept, inside)


def whole(text: str) -> str:
    """With U+FFFD in place of half characters (lone surrogates), which no file can hold."""
    return _SURROGATES.sub("\ufffd", text)


def _told(text: str) -> tuple[tuple[int, int], int] | None:
    """Thoughts that a sentence begins and another ends, as Granite has them: their span, and where the reply begins."""
    for first, second in _TOLD:
        begin = first.match(text)
        if begin is not None and (end := second.search(text, begin.end())) is not None:
            return (begin.end(), end.start()), end.end()
    return None


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Whether a quotation opens right before the tag or closes right after it."""
    start, end = tag.span()
    opens = text[start - 1 : start] in _QUOTES and not text[max(0, start - 2) : start - 1].strip(" \t\n([")
    closes = text[end : end + 1] in _QUOTES and not text[end + 1 : end + 2].strip(" \t\n.,;:!?)]")
    return (opens and start > 0) or (closes and end < len(text) and start > 0 and not text[start - 1].isspace())


def _without_end(text: str) -> str:
    """Without the tokens that end a turn, which some servers leave in the text."""
    start = max(0, len(text) - _LONGEST_END)
    if not any(mark in text[start:] for mark in _MARKS) or (found := _END_TOKENS.search(text, start)) is None:
        return text
    return text[: found.start()]


def from_message(message: Mapping[str, Any]) -> tuple[str, str]:
    """Text and thoughts of a chat completion's message, from its content (a text or parts) and servers' own fields."""
    content = message.get("content")
    thoughts = [_flat(message[name]) for name in _FIELDS if message.get(name)]
    if not isinstance(content, list):
        return content if isinstance(content, str) else "", _once(thoughts)
    said: list[str] = []
    for part in content:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Mapping):
            kind = str(part.get("type", "text"))
            is_thought = any(word in kind for word in ("think", "reason", "thought"))
            (thoughts if is_thought else said).append(_flat(part))
    return "".join(said), _once(thoughts)


def _once(thoughts: list[str]) -> str:
    """Servers tell the same thoughts in two fields."""
    return "\n".join(dict.fromkeys(filter(None, (thought.strip() for thought in thoughts))))


def _flat(value: Any) -> str:
    """The texts within a field, whatever its shape."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_flat, value))
    if isinstance(value, Mapping):
        names = ("text", "thinking", "summary", "reasoning", "content", "reasoning_content")
        return next((_flat(value[name]) for name in names if value.get(name)), "")
    return ""
