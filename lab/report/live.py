"""`depthlab report --live`: the page on the loopback address, made anew when the run's files change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import xxhash

from lab.errors import RunError
from lab.report.content import gather
from lab.report.page import page
from lab.report.read import CONFIG, DIAGNOSTICS, ENVIRONMENT, read_all
from lab.runfolder import metrics

ADDRESS = "127.0.0.1"


class Follower:
    """The newest page of some runs; threads of the server share it."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._version, self._page = "", ""
        self.newest()

    def version(self) -> str:
        """A hash of names, sizes and times of the files that the report reads."""
        state = []
        for file in self._files():
            try:
                found = file.stat()
            except FileNotFoundError:
                continue
            state.append(f"{file}:{found.st_size}:{found.st_mtime_ns}")
        return xxhash.xxh3_128_hexdigest("\n".join(state).encode("utf-8", "surrogateescape"))

    def newest(self) -> str:
        """The page, made anew if a file has changed.

        Raises:
            UserError: a run is no longer there.
        """
        with self._lock:
            version = self.version()
            if version != self._version:
                self._page = page(gather(read_all(self._paths)), live=True)
                self._version = version
            return self._page

    def _files(self) -> Iterator[Path]:
        for path in map(Path, self._paths):
            if path.is_dir():
                yield from (path / CONFIG, path / ENVIRONMENT, path / metrics.NAME)
                folder = path / DIAGNOSTICS if (path / DIAGNOSTICS).is_dir() else path
                yield from sorted(folder.glob("*.json"))
            else:
                yield path


def server(paths: list[str], *, port: int = 0) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet; `server_port` is its port.

    Raises:
        UserError: a path that is no run, or a port that is taken.
    """
    follower = Follower(paths)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Another site's page may make a browser ask here under its own name: it must not read the answer.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in (ADDRESS, "localhost"):
                self._answer(403, "text/plain", f"ask for http://{ADDRESS}:{self.server.server_port}/\n")
                return
            try:
                if self.path == "/version":
                    self._answer(200, "text/plain", follower.version())
                elif self.path in ("/", "/content"):
                    self._answer(200, "text/html", follower.newest())
                else:
                    self._answer(404, "text/plain", "not here\n")
            except ValueError as error:
                self._answer(503, "text/plain", f"{error}\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a page that polls would fill the terminal."""

        server: ThreadingHTTPServer

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise RunError(f"--port {port}: {error.strerror}; choose another, or leave it away for a free one") from error


def serve(paths: list[str], *, port: int = 0) -> None:
    """Serve until Ctrl-C, and say where.

    Raises:
        UserError: what `server` raises.
    """
    with server(paths, port=port) as running:
        print(f"http://{ADDRESS}:{running.server_port}/ follows {', '.join(paths)}; Ctrl-C ends it", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
