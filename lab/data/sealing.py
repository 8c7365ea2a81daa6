"""A tokenizer's special tokens put out of reach of text, so that their names in a document are ordinary text.

`Tokenizer.encode_special_tokens` keeps the library from cutting such names out of a text, but the model of the
tokenizer finds them all the same where they are entries of its vocabulary: a Unigram as a piece, a WordLevel or
WordPiece as a word, a BPE by its merges or whole. So those entries get names that no text has. Ids, scores and the
order of merges stay.
"""

from __future__ import annotations

import json
from typing import Any

_NAME = "\uffff\ufffe{}\ufffe\uffff"
"""Of characters that Unicode keeps out of text."""


def sealed(serialized: str, special: frozenset[int]) -> tuple[str, dict[int, str]]:
    """A `tokenizer.json` whose model does not find special tokens in a text.

    Args:
        serialized: content of `tokenizer.json`.
        special: ids that are special besides those it says are.

    Returns:
        The content, and the tokens that text does not become by id: special ones, except the one of unknown words.
    """
    content = json.loads(serialized)
    model, added = content["model"], content.get("added_tokens", [])
    ids = _vocabulary(model)
    names = {entry["content"]: entry["id"] for entry in added if entry["special"] or entry["id"] in special}
    names |= {token: number for token, number in ids.items() if number in special}
    new = {name: _NAME.format(number) for name, number in names.items() if name in ids}
    for entry in added:
        entry["content"] = new.get(entry["content"], entry["content"])
    _rename(model, new)
    unknown = unknown_id(model)
    return json.dumps(content, ensure_ascii=False), {
        number: name for name, number in names.items() if number != unknown
    }


def unknown_id(model: dict[str, Any]) -> int | None:
    """The id of what is in no vocabulary, of the model in a `tokenizer.json`; None where it has none."""
    if "unk_id" in model:
        return model["unk_id"]
    token = model.get("unk_token")
    return None if token is None else _vocabulary(model).get(token)


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: (piece, score) by id
        return {piece: number for number, (piece, _) in enumerate(vocabulary)}
    return vocabulary


def _rename(model: dict[str, Any], new: dict[str, str]) -> None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[new.get(piece, piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {new.get(token, token): number for token, number in vocabulary.items()}
    if model.get("unk_token") in new:
        model["unk_token"] = new[model["unk_token"]]
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not new.keys() & {*pair, pair[0] + pair[1].removeprefix(prefix)}]
