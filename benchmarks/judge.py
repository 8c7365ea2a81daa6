"""Judging: calls per second against a local server, CPU time of a call, memory, and a run from the cache.

The server is a process of its own that answers after 100 ms, as many at once as it is asked. Its limit at c calls in
flight is c / latency; the share of it that is reached is the figure.

    python benchmarks/judge.py --part speed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

LATENCY_S = 0.1
TARGET = 0.85
"""Share of the server's limit at 32 calls in flight that we hold ourselves to."""
FLIGHTS = (1, 8, 32, 128)

REPLY = json.dumps({"evidence": "The first is right. " * 40, "score_1": 8, "score_2": 6})
ROLES = json.dumps({"roles": [{"name": name, "focus": "facts"} for name in ("Accuracy", "Clarity", "Depth", "Tone")]})


async def serve(latency_s: float) -> None:
    """An OpenAI-compatible server, as little of one as will do; prints its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                if head.startswith(b"GET"):
                    answer: object = {"object": "list", "data": []}
                else:
                    await asyncio.sleep(latency_s)
                    text = ROLES if b'"name":"roles"' in body else REPLY
                    message = {"role": "assistant", "content": text}
                    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 200, "total_tokens": 1}
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    answer = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
                    answer |= {"usage": usage}
                raw = json.dumps(answer).encode()
                head_out = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
                writer.write(head_out.encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def write_pairs(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for number in range(count):
            texts = {"response1": f"answer {number} " * 60, "response2": f"reply {number} " * 60}
            file.write(json.dumps({"id": f"s{number}", "query": f"question {number}?", **texts}) + "\n")
    return path


def judge(folder: Path, *words: object) -> dict[str, float]:
    """One run in a process of its own: seconds, CPU seconds and the largest resident size in MiB."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "OPENAI_API_KEY": "none"}
    code = (
        "import json, resource, sys, time\n"
        "from evaluators.commands.run import parse\n"
        "from evaluators.running.run import Run\n"
        "run = Run(parse(sys.argv[1:], prog='judge'))\n"
        "began, cpu = time.perf_counter(), time.process_time()\n"
        "outcome = run.judge(lambda text: None)\n"
        "spent = outcome.tally.total\n"
        "print(json.dumps({'s': time.perf_counter() - began, 'cpu': time.process_time() - cpu, 'made': spent.calls,"
        "'cached': spent.cached, 'mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))\n"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def speed(folder: Path, url: str, seconds: float) -> None:
    print(f"calls per second against a server with {LATENCY_S * 1e3:.0f} ms, about {seconds:g} s each")
    for flight in FLIGHTS:
        # A sample is 17 calls in 5 rounds; enough samples that the last ones do not count.
        samples = max(2, round(seconds * flight / LATENCY_S / 17))
        pairs = write_pairs(folder / f"speed{flight}.jsonl", samples)
        words = ("--data", pairs, "--judge", "openai:m", "--base-url", url, "--out", folder / f"speed{flight}")
        found = judge(folder, *words, "--concurrency", flight)
        rate, limit = found["made"] / found["s"], flight / LATENCY_S
        note = f" (target {TARGET:.0%})" if flight == 32 else ""
        cpu_ms = found["cpu"] / found["made"] * 1e3
        print(
            f"  {flight:4} in flight: {rate:7.1f} calls/s, {rate / limit:5.1%} of the limit{note}, {cpu_ms:.2f} ms CPU"
        )


def memory(folder: Path) -> None:
    print("memory of simulated runs, 5 calls a sample")
    for samples in (1_000, 20_000):
        pairs = write_pairs(folder / f"memory{samples}.jsonl", samples)
        words = ("--data", pairs, "--judge", "simulated:roles=2", "--depth", 1, "--out", folder / f"memory{samples}")
        found = judge(folder, *words)
        print(f"  {samples:6,} samples: {found['mib']:.0f} MiB at most, {found['s']:.0f} s")


def cached(folder: Path, url: str, samples: int) -> None:
    pairs = write_pairs(folder / "cached.jsonl", samples)
    words = ("--data", pairs, "--judge", "openai:m", "--base-url", url, "--concurrency", 128, "--out")
    first = judge(folder, *words, folder / "first")
    again = judge(folder, *words, folder / "again")
    calls = first["made"]
    print(
        f"{samples:,} samples, {calls:,.0f} calls: {first['s']:.0f} s at first, {again['s']:.1f} s from the cache "
        f"({again['made']:.0f} made, {again['s'] / calls * 1e3:.2f} ms a call)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "memory", "cache", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=10, help="length of each speed measurement (default 10)")
    parser.add_argument("--samples", type=int, default=2553, help="samples of the cache measurement (default 2553)")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(serve(args.serve))
        return

    def server(latency_s: float) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, __file__, "--serve", str(latency_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slow, slow_url = server(LATENCY_S)
        quick, quick_url = server(0.0)
        try:
            if args.part in ("speed", "all"):
                speed(folder, slow_url, args.seconds)
            if args.part in ("memory", "all"):
                memory(folder)
            if args.part in ("cache", "all"):
                cached(folder, quick_url, args.samples)
        finally:
            for process in (slow, quick):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    main()
