"""A real HTTP server that speaks the OpenAI interface, and fails on a schedule."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Fault = dict[str, Any]

REVIEW = "Evaluation evidence: it is fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6"
ROLES = "- Accuracy: is it right\n- Clarity: is it easy to read\n- Depth: does it explain"


@dataclass(frozen=True)
class Answer:
    """What a vendor's manner answers in place of the plain server."""

    body: Any
    """JSON, or text that is sent as it is."""
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


class Server:
    """`faults` maps the number of a request (from 0) to what goes wrong with it:

    status and headers (an error), "drop" (the connection is closed), "hang" (no reply for so many seconds), "slow" (the
    body trickles for so many seconds), "cut" (half a body), "text" (another content), "message_fields" (beside it),
    "usage" (another usage).
    """

    def __init__(self) -> None:
        self.faults: dict[int, Fault] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.delivered: list[str] = []
        """The prompts that were answered in full: what a provider bills."""
        self.reply: Callable[[dict[str, Any]], str] = self._reply
        self.latency_s = 0.0
        self.schema = True
        self.manner: Callable[[dict[str, Any], int], Answer | None] = lambda body, number: None
        """Of a vendor (`vendors.py`): its answer to a request and its number; None: the plain one."""
        self.list_models: Callable[[int], Answer | None] = lambda number: None
        self.models_asked = 0
        self.models: list[dict[str, Any]] = [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                server.models_asked += 1
                if (own := server.list_models(server.models_asked - 1)) is not None:
                    self._own(own)
                    return
                self._send(200, {"object": "list", "data": server.models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.headers.append(dict(self.headers))
                    server.times.append(time.monotonic())
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                try:
                    if (own := server.manner(body, number)) is not None:
                        self._own(own)
                    else:
                        self._answer(body, server.faults.get(number, server.faults.get(-1, {})))
                finally:
                    with server._lock:
                        server._now -= 1

            def _own(self, own: Answer) -> None:
                time.sleep(own.wait_s)
                raw = own.body.encode() if isinstance(own.body, str) else json.dumps(own.body).encode()
                self.send_response(own.status)
                for name, text in {"Content-Type": own.kind, "Content-Length": str(len(raw)), **own.headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(raw)

            def _answer(self, body: dict[str, Any], fault: Fault) -> None:
                time.sleep(server.latency_s + fault.get("hang", 0))
                if fault.get("drop"):
                    self.close_connection = True
                    return
                if "status" in fault:
                    error = {"message": fault.get("message", "injected"), "code": fault.get("code")}
                    self._send(fault["status"], {"error": error}, fault.get("headers", {}))
                    return
                if not server.schema and "response_format" in body:
                    self._send(400, {"error": {"message": "response_format is not supported"}})
                    return
                text = fault.get("text", server.reply(body))
                usage = fault.get("usage", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})
                message = {"role": "assistant", "content": text, **fault.get("message_fields", {})}
                choice = {"index": 0, "message": message, "finish_reason": fault.get("finish", "stop")}
                if body.get("logprobs"):
                    choice["logprobs"] = fault.get("logprobs")
                completion = {
                    "id": "c",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "choices": [] if fault.get("no_choices") else [choice],
                    "usage": usage,
                }
                if self._send(200, completion, cut=fault.get("cut"), slow_s=fault.get("slow", 0)):
                    with server._lock:
                        server.delivered.append(json.dumps(body["messages"]))

            def _send(
                self,
                status: int,
                value: Any,
                headers: dict[str, str] | None = None,
                *,
                cut: bool | None = None,
                slow_s: float = 0,
            ) -> bool:
                raw = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.end_headers()
                try:
                    if cut:
                        self.wfile.write(raw[: len(raw) // 2])
                        self.close_connection = True
                        return False
                    if slow_s:
                        for byte in range(0, len(raw), 8):
                            self.wfile.write(raw[byte : byte + 8])
                            self.wfile.flush()
                            time.sleep(slow_s * 8 / len(raw))
                    else:
                        self.wfile.write(raw)
                except OSError:
                    return False
                return True

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None: ...

        self._http = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _reply(self, body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        if "response_format" in body:
            if body["response_format"]["json_schema"]["name"] == "roles":
                names = [line[2:].split(":")[0] for line in ROLES.splitlines()]
                return json.dumps({"roles": [{"name": name, "focus": "x"} for name in names]})
            return json.dumps({"evidence": "it is fine", "score_1": 8, "score_2": 6})
        return ROLES if "From which perspectives" in prompt else REVIEW

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
