"""The page's server: loopback only, requests of its own page only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from evaluators.showing.annotation import Decisions, shown_order

_LONGEST_BODY = 10_000


class AnnotationServer(ThreadingHTTPServer):
    """Serves the records of a run to people whose name stands in the address.

    Every request must name this address as its host, come from no other origin, and carry the token that was printed:
    other pages in the same browser, and names that resolve to the loopback address, are refused with 403.
    """

    daemon_threads = True

    def __init__(self, records: Sequence[Mapping[str, Any]], decisions: Decisions, port: int = 0) -> None:
        self.records = records
        self.decisions = decisions
        self.token = secrets.token_urlsafe(16)
        super().__init__(("127.0.0.1", port), _Handler)
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"

    def address(self, annotator: str) -> str:
        """For the browser, which is told to send it on to nobody (Referrer-Policy)."""
        return f"{self.origin}/?token={self.token}&annotator={annotator}"


class _Handler(BaseHTTPRequestHandler):
    server: AnnotationServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not self._allowed(query.get("token", "")):
            return
        if url.path == "/":
            self._send(200, *_page())
        elif url.path == "/sample":
            self._sample(query.get("annotator", ""), query.get("at", ""))
        else:
            self._send(404, b"no such page", "text/plain")

    def do_POST(self) -> None:
        if not self._allowed(self.headers.get("X-Token", "")):
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_BODY:
            self._send(413, b"too long", "text/plain")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            at, annotator = body["at"], body["annotator"]
            if not (
                type(at) is int and 0 <= at < len(self.server.records) and isinstance(annotator, str) and annotator
            ):
                raise ValueError
            if self.path == "/reviews":
                self._reviews(annotator, self.server.records[at])
            elif self.path == "/decide":
                self._decide(annotator, self.server.records[at], body["choice"], float(body["seconds"]))
            else:
                self._send(404, b"no such page", "text/plain")
        except (ValueError, KeyError, TypeError):
            self._send(400, b"no decision", "text/plain")

    def _decide(self, annotator: str, record: Mapping[str, Any], choice: int, seconds: float) -> None:
        """Raises ValueError where it is no choice, or no time."""
        if choice not in (0, 1, 2) or not 0 <= seconds < math.inf:
            raise ValueError
        turned = shown_order(annotator, record["id"]) == "21"
        self.server.decisions.add(annotator, record["id"], _turn(choice, turned), seconds)
        self._send(200, b"{}", "application/json")

    def _reviews(self, annotator: str, record: Mapping[str, Any]) -> None:
        """The last layer first, which has read the others; in it, those first that saw the responses as this person."""
        self.server.decisions.open_reviews(annotator, record["id"])
        order = shown_order(annotator, record["id"])
        reviews = [
            {
                "layer": item["layer"],
                "role": item["role"],
                "evidence": item["evidence"],
                "scores": item["scores"][:: 1 if order == "12" else -1],
                "turned": item["order"] != order,
            }
            for layer in reversed(record["layers"])
            for item in sorted(layer, key=lambda item: item["order"] != order)
            if "scores" in item
        ]
        self._send(200, json.dumps(reviews).encode(), "application/json")

    def _allowed(self, token: str) -> bool:
        origin = self.headers.get("Origin")
        ok = (
            self.headers.get("Host") == self.server.origin.removeprefix("http://")
            and origin in (None, self.server.origin)
            and hmac.compare_digest(token.encode(), self.server.token.encode())
        )
        if not ok:
            self._send(403, b"not from this page", "text/plain")
        return ok

    def _sample(self, annotator: str, at: str) -> None:
        """A number, or "next": the first that this annotator has not decided. One past the last has no texts."""
        records, mine = self.server.records, self.server.decisions.latest
        open_ = [number for number, other in enumerate(records) if (annotator, other["id"]) not in mine]
        number = (open_[0] if open_ else len(records)) if at == "next" else int(at) if at.isdecimal() else -1
        if not annotator or not 0 <= number <= len(records):
            self._send(404, b"no such sample", "text/plain")
            return
        found: dict[str, Any] = {"at": number, "total": len(records), "done": len(records) - len(open_)}
        if number < len(records):
            record = records[number]
            turned = shown_order(annotator, record["id"]) == "21"
            responses = [record["response1"], record["response2"]]
            made = mine.get((annotator, record["id"]))
            found["query"] = record["query"]
            found["responses"] = responses[::-1] if turned else responses
            found["choice"] = None if made is None else _turn(made["label"], turned)
        self._send(200, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _page() -> tuple[bytes, str, str]:
    """The page, its type, and a policy that lets its one script run and ask this server alone."""
    page = (files("evaluators.showing.annotation") / "page.html").read_bytes()
    script = page.split(b"<script>", 1)[1].split(b"</script>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
    return page, "text/html; charset=utf-8", f"default-src 'none'; {allowed}; frame-ancestors 'none'"


def _turn(label: int, turned: bool) -> int:
    """From responses as shown to those of the sample, and back; a tie stays one."""
    return 3 - label if turned and label else label
