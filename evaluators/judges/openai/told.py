"""What a server says in place of a completion, whatever its shape: JSON of many kinds, HTML, plain text, a stream."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_WORDS = ("message", "detail", "msg", "error", "errors", "reason", "error_description", "title")
_CODES = ("code", "type", "status", "reason")
_MOST = 20_000
"""Characters of a message that are looked at."""
_SHOWN = 300
_AROUND = 12
"""Characters beside a word by which a quotation of the prompt is known."""
_DAY_S = 86_400.0
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_TITLE = re.compile(r"<(title|h1)\b[^>]*>([^<]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """A refusal or an error, in parts."""

    status: int
    """Of the response, or of the error in a response with status 200 (400 where it has none of its own)."""
    message: str
    """In the server's words; may hold anything, the key included."""
    codes: str = ""
    """Its machine-readable kinds, in lower case: `invalid_request_error model_not_found`."""
    parameters: tuple[str, ...] = ()
    """The fields of our request that it names by themselves (`param`, `loc`)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    has_status: bool = True
    """False for an error in a response with status 200 that has none of its own."""

    @property
    def line(self) -> str:
        """For people, on one line; not masked yet."""
        head = f"HTTP {self.status}" if self.has_status else "an error in place of a reply"
        return f"{head}: {one_line(self.message) or 'no reason given'}"

    def says(self, pattern: re.Pattern[str], prompt: str) -> bool:
        """Whether it says so itself: what it quotes of our own prompt does not count."""
        if pattern.search(self.codes):
            return True
        return any(not _is_quoted(self.message, match, prompt) for match in pattern.finditer(self.message))

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait, at most a day, from its headers (RFC 9110, 10.2.3); None where they do not say."""
        milliseconds, value = self.headers.get("retry-after-ms"), self.headers.get("retry-after")
        if (wait_s := _number(milliseconds)) is not None:
            return _bounded(wait_s / 1000)
        if value is None:
            return None
        return _bounded(_until_s(value) if (wait_s := _number(value)) is None else wait_s)


def one_line(text: str, most: int = _MOST) -> str:
    """Without line ends, control signs and terminal escapes."""
    text = _ESCAPE.sub("", text[:most])
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def shortened(text: str) -> str:
    """As much as is shown of a message."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def from_response(status: int, headers: Mapping[str, str], raw: bytes, moved_to: str | None) -> Told:
    """What a response with an error status says."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    told = Told(status, _of_text(headers, raw)) if body is None else from_json(body, status)
    moved = "" if moved_to is None else f"after a redirect to {moved_to}: "
    return Told(told.status, moved + told.message, told.codes, told.parameters, headers)


def from_json(body: Any, status: int) -> Told:
    """What a JSON value says; the status is its own code where it has one that is a status."""
    layers = list(_layers(body))
    codes = [str(layer[name]) for layer in layers for name in _CODES if isinstance(layer.get(name), (str, int))]
    own = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
    return Told(
        status if status >= 400 else own[0] if own else 400,
        _words(body)[:_MOST] or (json.dumps(body)[:_MOST] if body else ""),
        " ".join(codes).lower(),
        tuple(name for layer in layers for name in _parameters(layer)),
        has_status=bool(own) or status >= 400,
    )


def what_it_is(headers: Mapping[str, str], raw: bytes) -> str:
    """In place of a completion."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream" or raw.lstrip()[:5] == b"data:":
        return "answered with a stream of events, for which nobody asked"
    return f"answered with {one_line(kind) or 'no content type'}: {_of_text(headers, raw) or 'nothing'}"


def _of_text(headers: Mapping[str, str], raw: bytes) -> str:
    text = raw[:_MOST].decode("utf-8", "replace")
    if "html" in headers.get("content-type", "").lower() or text.lstrip()[:9].lower() in ("<!doctype", "<html>"):
        titles = [one_line(match[2]) for match in _TITLE.finditer(text)]
        return next(filter(None, titles), "a page without a title")
    return one_line(text)


def _layers(body: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects in which servers put an error: the outermost first."""
    if depth > 4:
        return
    if isinstance(body, list):
        for item in body[:20]:
            yield from _layers(item, depth + 1)
    elif isinstance(body, Mapping):
        yield body
        for name in ("error", "message", "detail", "innererror", "details", "errors", "metadata"):
            yield from _layers(body.get(name), depth + 1)


def _words(value: Any, depth: int = 0) -> str:
    """The text of an error: the first of the usual fields that holds one."""
    if isinstance(value, str):
        return value
    if depth > 5:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(item, depth + 1) for item in value[:20])))
    if not isinstance(value, Mapping):
        return ""
    found = next(filter(None, (_words(value.get(name), depth + 1) for name in ("error", *_WORDS))), "")
    if found and isinstance(value.get("loc"), list):
        found = f"{'.'.join(map(str, value['loc']))}: {found}"
    upstream = value.get("metadata")
    if isinstance(upstream, Mapping) and upstream.get("raw"):  # a router's: what the provider behind it said
        found = f"{found}: {_upstream(upstream['raw'], depth)}"
    return found


def _upstream(raw: Any, depth: int) -> str:
    try:
        return _words(json.loads(raw), depth + 1) or str(raw)
    except (ValueError, TypeError, RecursionError):
        return str(raw)


def _parameters(layer: Mapping[str, Any]) -> Iterator[str]:
    param, location = layer.get("param"), layer.get("loc")
    if isinstance(param, str) and param.strip() and param.lower() not in ("none", "null"):
        yield param
    if isinstance(location, list):
        yield ".".join(str(part) for part in location if part != "body")
    for violation in layer.get("fieldViolations") or []:
        if isinstance(violation, Mapping) and isinstance(violation.get("field"), str) and violation["field"]:
            yield violation["field"]


def _is_quoted(message: str, match: re.Match[str], prompt: str) -> bool:
    before = message[max(0, match.start() - _AROUND) : match.end()]
    after = message[match.start() : match.end() + _AROUND]
    return any(len(text) > len(match[0]) + 3 and text in prompt for text in (before, after))


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _until_s(value: str) -> float:
    """Seconds until a date; NaN for what is none, or lies where no calendar goes."""
    try:
        date = email.utils.parsedate_tz(value)
        return math.nan if date is None else email.utils.mktime_tz(date) - time.time()
    except (ValueError, OverflowError, TypeError, IndexError):
        return math.nan


def _bounded(wait_s: float) -> float | None:
    """None for what is no time to wait: not a number, infinite, or more than a year."""
    if not math.isfinite(wait_s) or wait_s > 366 * _DAY_S:
        return None
    return min(max(0.0, wait_s), _DAY_S)
