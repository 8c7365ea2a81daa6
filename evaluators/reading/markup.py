"""What chat templates and tokenizers take for the end of a message, or the beginning of another: one grammar.

It holds the special tokens of Llama 1 to 4, Qwen, Mistral, Gemma 1 to 4, DeepSeek, Phi, OLMo, GPT-OSS, GLM, Kimi,
MiniMax, EXAONE, Granite, Nemotron, Seed-OSS, Baichuan, InternLM, Ling, Command R, Falcon, GPT-NeoX, BERT and T5.
"""

from __future__ import annotations

import re

_NAME = r"[\w:./ \-]{1,60}"
_ANGLES = (
    # Ends of texts, padding, infilling, messages.
    r"s|[be]os|pad|unk|cls|sep|mask|eod|eop|sop|eot|eom|eo[ah]|eosys|fim_[a-z]+|im_(?:start|end)|"
    r"(?:start|end|begin|beginning)_of_\w{1,40}|(?:image|audio)_soft_token|"
    # Reserved names.
    r"(?:unused|reserved|special|extra|extra_id|mask|tokens_unused|added_token)[_:]?\d+|"
    # Thoughts, tools, roles.
    r"think|thinking|thought|reasoning|tools?|tool_\w{1,20}|function_calls?|arg_(?:key|value)|role|"
    r"(?:seed|minimax):\w{1,20}"
)
_SQUARES = (
    r"(?i:inst)|THINK|ARGS|CALL_ID|PREFIX|MIDDLE|SUFFIX|[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT|"
    r"(?:TOOL|AVAILABLE|SYSTEM|MODEL|IMG|AUDIO|BEGIN|END|UNUSED)(?:_[A-Z0-9]+)*"
)
_AFTER = (
    ("<", rf"(?=<?[^<>\n]{{1,70}}>)(?:\|{_NAME}\|?>|\|\"\|>|{_NAME}\|>|</?(?i:sys)>>|/?(?i:{_ANGLES})/?>)"),
    (r"\[", rf"\|{_NAME}\|\]|e~\[|/?(?=[A-Zgis])(?:{_SQUARES})\]"),
    (r"\]", r"~!?b[\[\]]"),
)
"""First sign and what follows it."""
# A token that is broken already, by spaces after its first sign, is broken once more: so undoing is exact.
_TOKEN = re.compile("|".join(rf"{first} *+(?={rest})" for first, rest in _AFTER))

_ALIKE: dict[int, int | str] = {
    **{wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, "\u2039\u2329\u27e8\u276c\u276e\u3008\ufe64\u02c2"), "<"),
    **dict.fromkeys(map(ord, "\u203a\u232a\u27e9\u276d\u276f\u3009\ufe65\u02c3"), ">"),
    **dict.fromkeys(map(ord, "\u2223\u2758\u00a6\u01c0\u2502\u23d0"), "|"),
    **dict.fromkeys(map(ord, "\u3010\u27e6\u3014"), "["),
    **dict.fromkeys(map(ord, "\u3011\u27e7\u3015"), "]"),
    0x2581: "_",
}
"""Signs that a tokenizer's normalization, or a reader, takes for those of the grammar."""
_UNSEEN = frozenset(
    chr(code)
    for low, high in (
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xFFF9, 0xFFFB),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF),
    )
    for code in range(low, high + 1)
)
"""What takes no room on a screen (Unicode's default ignorable code points): zero width, direction, variants, tags."""


def has_chat_markup(text: str) -> bool:
    """Whether a text holds any of it that nothing breaks."""
    return any(len(found[0]) == 1 for found in _TOKEN.finditer(_seen(text)[0]))


def neutralize(text: str) -> str:
    """Break every token by a space after its first sign: `<|im_end|>` becomes `< |im_end|>`, and nothing else changes.

    Where a text holds broken ones already, each gets one more space, so that taking one from each gives the text back.
    """
    seen, places = _seen(text)
    parts, done = [], 0
    for found in _TOKEN.finditer(seen):
        at = 1 + (found.end() - 1 if places is None else places[found.end() - 1])
        parts.append(text[done:at])
        done = at
    return " ".join([*parts, text[done:]]) if parts else text


def _seen(text: str) -> tuple[str, list[int] | None]:
    """A text as a reader sees it, and where its signs stand in the text; None: where they stand in what is seen."""
    if text.isascii():
        return text, None
    alike = text.translate(_ALIKE)
    if _UNSEEN.isdisjoint(alike):
        return alike, None
    places = [at for at, sign in enumerate(alike) if sign not in _UNSEEN]
    return "".join([alike[at] for at in places]), places
