"""The cache is built once by concurrent processes, again after an interruption, and again when damaged."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.data import DataConfig, DataError, cache, load_tokenizer, prepare
from lab.data.cache import build_once

BUILDER = """
import sys, time
from pathlib import Path
from lab.data.cache import build_once
root, pause = Path(sys.argv[1]), float(sys.argv[2])
def build(into):
    with open(root / "builds", "a") as log:
        log.write("started\\n")
    (into / "part").write_text("half")
    time.sleep(pause)
    (into / "part").write_text("whole")
    return {"answer": 42}
print(build_once(root / "cache" / "key", build)["answer"])
"""


def start(root: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def builds(root: Path) -> int:
    return len((root / "builds").read_text().splitlines()) if (root / "builds").exists() else 0


def test_concurrent_processes_build_once_and_agree(tmp_path: Path) -> None:
    processes = [start(tmp_path, 1.0) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["42"] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert builds(tmp_path) == 1


def test_a_killed_build_is_done_again(tmp_path: Path) -> None:
    killed = start(tmp_path, 60)
    deadline = time.monotonic() + 60
    while builds(tmp_path) == 0 or not list((tmp_path / "cache").glob(".key.*/part")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "cache" / "key").exists()
    again = start(tmp_path, 0)
    assert again.communicate(timeout=60)[0].strip() == "42"
    assert (tmp_path / "cache" / "key" / "part").read_text() == "whole"
    assert builds(tmp_path) == 2
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["key", "key.lock"]


@pytest.mark.parametrize("damage", ["changed", "cut", "file lost", "meta lost", "meta cut"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def build(into: Path) -> dict[str, int]:
        calls.append(into)
        (into / "part").write_text("whole")
        return {"answer": len(calls)}

    key = tmp_path / "key"
    assert build_once(key, build) == build_once(key, build) == {"answer": 1}
    if damage == "changed":
        (key / "part").write_text("WHOLE")
    elif damage == "cut":
        (key / "part").write_text("who")
    elif damage == "file lost":
        (key / "part").unlink()
    elif damage == "meta lost":
        (key / "meta.json").unlink()
    else:
        (key / "meta.json").write_text((key / "meta.json").read_text()[:20])
    assert build_once(key, build) == {"answer": 2}
    assert (key / "part").read_text() == "whole"
    assert "building it again" in caplog.text


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(into: Path) -> dict[str, int]:
        (into / "part").write_text("half")
        raise DataError("no text")

    with pytest.raises(DataError, match="no text"):
        build_once(tmp_path / "key", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"--data\.cache-dir"):
        build_once(tmp_path / "file" / "tokens" / "key", lambda into: {})


PREPARE = """
import sys, xxhash
from lab.data import DataConfig, load_tokenizer, prepare
settings = dict(tokenizer="bpe:300", text_unit="line", block_length=16)
config = DataConfig(source=(sys.argv[1],), cache_dir=sys.argv[2], **settings)
corpus = prepare(config, load_tokenizer(config, progress=False), seed=0, progress=False)
batches = corpus.batches(rank=0, world_size=1, micro_batch=8)
print(xxhash.xxh3_64_hexdigest(b"".join(next(batches)["input_ids"].numpy().tobytes() for _ in range(5))))
"""


def test_three_real_processes_prepare_the_same_corpus(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("\n".join(f"line {n} of some text {n * n}" for n in range(2000)))
    command = [sys.executable, "-c", PREPARE, str(text), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3 and len(digests) == 1
    for kind in ("tokens", "tokenizers"):
        assert len([path for path in (tmp_path / "cache" / kind).iterdir() if path.is_dir()]) == 1


def test_the_key_follows_the_contents(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"

    def digest(content: str, **settings: object) -> str:
        text.write_text(content)
        config = DataConfig(
            source=(str(text),),
            text_unit="line",
            tokenizer="bpe:257",
            block_length=8,
            cache_dir=str(tmp_path / "c"),
            **settings,
        )
        corpus = prepare(config, load_tokenizer(config, progress=False), seed=0, progress=False)
        return corpus.summary()["data_digest"]

    lines = "\n".join(f"number {n}" for n in range(200))
    first = digest(lines)
    assert digest(lines) == first
    assert digest(lines.replace("number 7\n", "number 8\n")) != first
    assert digest(lines, heldout_fraction=0.2) != first
    meta = next((tmp_path / "c" / "tokens").glob("*/meta.json"))
    assert set(json.loads(meta.read_text())["files"]) == {"train.npy", "heldout.npy", "heldout_bytes.npy"}


UNLOCKED_BUILDER = """
import socket, sys, time
from pathlib import Path
import filelock
import numpy as np
filelock.FileLock.acquire = filelock.FileLock.release = lambda self, *args, **named: None  # locks do not reach
from lab.data.cache import build_once
root, me, other, hosts = Path(sys.argv[1]), *sys.argv[2:]
if hosts == "two":
    socket.gethostname = lambda: me
def meet(point):
    (root / f"{me}.{point}").touch()
    while not (root / f"{other}.{point}").exists():
        time.sleep(0.01)
def build(into):
    np.save(into / "part.npy", np.arange(1000))
    meet("built")
    if me == "late":
        while not (root / "early.mapped").exists():
            time.sleep(0.01)
    return {"by": me}
content = build_once(root / "cache" / "key", build)
mapped = np.load(root / "cache" / "key" / "part.npy", mmap_mode="r")
status = (root / "cache" / "key" / "part.npy").stat()
meet("mapped")
if me == "early":
    while not (root / "late.done").exists():
        time.sleep(0.01)
    now = (root / "cache" / "key" / "part.npy").stat()
    assert (now.st_ino, now.st_nlink) == (status.st_ino, 1), "torn away"
    assert int(mapped.sum()) == 499500
(root / f"{me}.done").touch()
print(content["by"])
"""


@pytest.mark.parametrize("hosts", ["one", "two"])
def test_where_locks_do_not_reach_the_later_builder_takes_the_earlier_ones(tmp_path: Path, hosts: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UNLOCKED_BUILDER, str(tmp_path), me, other, hosts],
            stdout=subprocess.PIPE,
            text=True,
        )
        for me, other in (("early", "late"), ("late", "early"))
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["early", "early"]
    assert [process.returncode for process in processes] == [0, 0]
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "key.lock"] == ["key"]


def test_a_whole_folder_that_came_meanwhile_is_not_moved_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is found damaged, and another process mends it before this one moves it aside."""
    key = tmp_path / "key"

    def build(into: Path) -> dict[str, str]:
        (into / "part").write_text("whole")
        return {"by": into.name}

    build_once(key, build)
    (key / "part").write_text("WHOLE")
    read, looks = cache._read, []

    def read_then_mend(directory: Path) -> dict[str, str] | None:
        found = read(directory)
        looks.append(found)
        if len(looks) == 3:  # after building, before moving aside
            key.rename(tmp_path / "gone")
            other = tmp_path / "other"
            monkeypatch.setattr(cache, "_read", read)
            build_once(other, lambda into: build(into) | {"by": "other"})
            other.rename(key)
            monkeypatch.setattr(cache, "_read", read_then_mend)
        return found

    monkeypatch.setattr(cache, "_read", read_then_mend)
    assert build_once(key, build) == {"by": "other"}
    assert (key / "part").stat().st_nlink == 1


@pytest.mark.parametrize(("code", "works"), [(errno.ENOSYS, True), (errno.ENOLCK, False), (errno.EOPNOTSUPP, False)])
def test_a_file_system_without_locks_works_or_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, works: bool
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if works:
        assert build_once(tmp_path / "made", lambda into: {"n": 1}) == {"n": 1}
        return
    with pytest.raises(DataError, match=r"cannot write the data cache .*--data\.cache-dir"):
        build_once(tmp_path / "made", lambda into: {"n": 1})
