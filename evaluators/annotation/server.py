"""The page's server: loopback only, requests of its own page only."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from evaluators.annotation import Decisions, shown_order

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
            page = (files("evaluators.annotation") / "page.html").read_bytes()
            self._send(200, page, "text/html; charset=utf-8")
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
            at, choice, seconds = body["at"], body["choice"], float(body["seconds"])
            annotator, assisted = str(body["annotator"]), bool(body["assisted"])
        except (ValueError, KeyError, TypeError):
            self._send(400, b"no decision", "text/plain")
            return
        if (
            not isinstance(at, int)
            or not 0 <= at < len(self.server.records)
            or choice not in (0, 1, 2)
            or not annotator
        ):
            self._send(400, b"no decision", "text/plain")
            return
        name = self.server.records[at]["id"]
        order = shown_order(annotator, name)
        label = choice if order == "12" or choice == 0 else 3 - choice
        decision = {"annotator": annotator, "id": name, "label": label, "shown": order, "assisted": assisted}
        self.server.decisions.add({**decision, "seconds": max(seconds, 0.0), "time": time.time()})
        self._send(200, b"{}", "application/json")

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
        records = self.server.records
        if not annotator or not at.isdecimal() or int(at) >= len(records):
            self._send(404, b"no such sample", "text/plain")
            return
        record = records[int(at)]
        turned = shown_order(annotator, record["id"]) == "21"
        responses = [record["response1"], record["response2"]]
        made = self.server.decisions.latest.get((annotator, record["id"]))
        done = sum((annotator, other["id"]) in self.server.decisions.latest for other in records)
        choice = None if made is None else made["label"] if not turned or not made["label"] else 3 - made["label"]
        found = {"at": int(at), "total": len(records), "done": done, "query": record["query"], "choice": choice}
        found["responses"] = responses[::-1] if turned else responses
        found["reviews"] = [
            {"role": item["role"], "evidence": item["evidence"], "scores": item["scores"][:: -1 if turned else 1]}
            for layer in record["layers"]
            for item in layer
            if "scores" in item
        ]
        self._send(200, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
