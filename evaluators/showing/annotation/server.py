"""The page's server: loopback only, requests of its own page only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from evaluators.showing.annotation import Decisions, shown_order

_LONGEST_BODY = 10_000
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?")


class AnnotationServer(ThreadingHTTPServer):
    """Serves the records of a run to people, each of whom has an address and a token of their own.

    Every request must name the loopback address as its host, come from no other origin, and carry a token, which says
    whose it is: other pages in the same browser, and names that resolve to the loopback address, are refused with 403.
    The port may be another one than the server's, which `ssh -L` brings here.
    """

    daemon_threads = True

    def __init__(self, records: Sequence[Mapping[str, Any]], people: Sequence[Decisions], port: int = 0) -> None:
        self.records = records
        self.people = {secrets.token_urlsafe(16): decisions for decisions in people}
        """Token -> whose it is, and what they decided."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"

    def address(self, annotator: str) -> str:
        """For the browser, which is told to send it on to nobody (Referrer-Policy)."""
        token = next(token for token, decisions in self.people.items() if decisions.annotator == annotator)
        return f"{self.origin}/?token={token}"

    def whose(self, token: str) -> Decisions | None:
        """The decisions of the person with this token; all tokens are compared, in the same time."""
        matches = [
            decisions for own, decisions in self.people.items() if hmac.compare_digest(own.encode(), token.encode())
        ]
        return matches[0] if matches else None


class _Handler(BaseHTTPRequestHandler):
    server: AnnotationServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        decisions = self._allowed(query.get("token", ""))
        if decisions is None:
            return
        if url.path == "/":
            self._send(200, *_page())
        elif url.path == "/sample":
            self._sample(decisions, query.get("at", ""))
        else:
            self._send(404, b"no such page", "text/plain")

    def do_POST(self) -> None:
        decisions = self._allowed(self.headers.get("X-Token", ""))
        if decisions is None:
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_BODY:
            self._send(413, b"too long", "text/plain")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            at = body["at"]
            if not (type(at) is int and 0 <= at < len(self.server.records)):
                raise ValueError
            if self.path == "/reviews":
                self._reviews(decisions, self.server.records[at])
            elif self.path == "/decide":
                self._decide(decisions, self.server.records[at], body["choice"], float(body["seconds"]))
            else:
                self._send(404, b"no such page", "text/plain")
        except (ValueError, KeyError, TypeError, RecursionError):
            self._send(400, b"no decision", "text/plain")

    def _decide(self, decisions: Decisions, record: Mapping[str, Any], choice: int, seconds: float) -> None:
        """Raises ValueError where it is no choice, or no time."""
        if choice not in (0, 1, 2) or not 0 <= seconds < math.inf:
            raise ValueError
        turned = shown_order(decisions.annotator, record["id"]) == "21"
        decisions.add(record["id"], _turn(choice, turned), seconds)
        self._send(200, b"{}", "application/json")

    def _reviews(self, decisions: Decisions, record: Mapping[str, Any]) -> None:
        """The last layer first, which has read the others; in it, those first that saw the responses as this person."""
        decisions.open_reviews(record["id"])
        order = shown_order(decisions.annotator, record["id"])
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

    def _allowed(self, token: str) -> Decisions | None:
        """Who asks; None: nobody who may, and that is answered."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if _LOOPBACK.fullmatch(host) and origin in (None, f"http://{host}") and (found := self.server.whose(token)):
            return found
        self._send(403, b"not from this page", "text/plain")
        return None

    def _sample(self, decisions: Decisions, at: str) -> None:
        """A number, or "next": the first that this person has not decided. One past the last has no texts."""
        records, mine = self.server.records, decisions.latest
        open_ = [number for number, other in enumerate(records) if other["id"] not in mine]
        number = (open_[0] if open_ else len(records)) if at == "next" else int(at) if at.isdecimal() else -1
        if not 0 <= number <= len(records):
            self._send(404, b"no such sample", "text/plain")
            return
        found: dict[str, Any] = {
            "annotator": decisions.annotator,
            "at": number,
            "total": len(records),
            "done": len(records) - len(open_),
        }
        if number < len(records):
            record = records[number]
            turned = shown_order(decisions.annotator, record["id"]) == "21"
            responses = [record["response1"], record["response2"]]
            made = mine.get(record["id"])
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
