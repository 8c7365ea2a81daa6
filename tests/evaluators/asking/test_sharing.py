"""One file for many processes: opened by all at once, claimed while calls last, locked, on odd file systems."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluators.asking import claims as claims_module
from evaluators.asking import database as database_module
from evaluators.asking.cache import Cache
from evaluators.errors import RunError
from evaluators.messages import Reply
from evaluators.values import Usage
from tests.evaluators.conftest import ROOT, records, write_pairs

REPLY = Reply("text", Usage(1, 1))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "deep" / "cache.sqlite"


def test_32_processes_open_a_new_cache_at_once(path):
    """They wait for one file to be there, and open the cache in the same instant."""
    go = path.parent.parent / "go"
    code = (
        "import asyncio, sys, time; from pathlib import Path; from evaluators.asking.cache import Cache\n"
        "from evaluators.messages import Reply; from evaluators.values import Usage\n"
        "print('ready', flush=True)\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "for n in range(3):\n"
        "    c = Cache(Path(f'{sys.argv[1]}{n}'))\n"
        "    asyncio.run(c.put(sys.argv[3], 'j', Reply('x', Usage(1, 1)), None)); c.close()\n"
    )
    # Threads of one process would share locks, so these are processes; forked from one, because imports take long.
    fork = (
        "import os, sys\n"
        "import evaluators.asking.cache, evaluators.messages\n"
        f"code = {code!r}\n"
        "children = []\n"
        "for number in range(32):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        sys.argv.append(str(number))\n"
        "        try: exec(code)\n"
        "        except BaseException as error: print(error, file=sys.stderr); os._exit(1)\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "open(sys.argv[2], 'w').close()\n"
        "sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", fork, path, go], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for number in range(3):
        assert Cache(Path(f"{path}{number}")).summary()[0][1] == 32


def test_a_claim_lasts_as_long_as_its_call(path, monkeypatch):
    """The clock goes on for several times a claim's length; after each renewal, another process is still kept out."""
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "time", lambda: now[0])
    monkeypatch.setattr(claims_module, "RENEWALS", 3000)
    ours, theirs = Cache(path), Cache(path)

    async def run():
        assert await ours.claim("k") is None
        for _ in range(5):
            now[0] += claims_module.CLAIM_S * 0.9
            renewed = asyncio.create_task(_until(theirs, "k", now[0] + claims_module.CLAIM_S))
            await asyncio.wait_for(renewed, 30)
            assert not theirs.database.now(lambda db: theirs.claims.take(db, "k"))
        await ours.put("k", "j", REPLY, None)
        assert await theirs.claim("k") == REPLY

    asyncio.run(run())


async def _until(cache: Cache, key: str, until_s: float) -> None:
    query = "SELECT until FROM claims WHERE key = ?"
    while cache.database.now(lambda db: db.execute(query, (key,)).fetchone())[0] < until_s:
        await asyncio.sleep(0.005)


def test_a_claim_without_signs_of_life_ends(path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "time", lambda: now[0])
    ours, theirs = Cache(path), Cache(path)
    assert ours.database.now(lambda db: ours.claims.take(db, "k"))
    assert not theirs.database.now(lambda db: theirs.claims.take(db, "k"))
    now[0] += claims_module.CLAIM_S + 1
    assert theirs.database.now(lambda db: theirs.claims.take(db, "k"))


@pytest.mark.parametrize(
    ("owner", "dead"),
    [
        ("{numbers} 999999999 5 x", True),  # no such process
        ("{numbers} {pid} 5 x", True),  # another one has its number now
        ("{numbers} {pid} {began} x", False),
        ("other-boot/pid:[1] 999999999 5 x", False),  # of another host or container: we cannot see it
        ("{boot}/pid:[1] 999999999 5 x", False),
        ("host:999999999:5", False),  # as earlier versions wrote them
        ("", False),
    ],
)
def test_only_processes_that_can_be_seen_are_found_dead(owner, dead):
    numbers = claims_module._numbers()
    began = claims_module._started(os.getpid())
    text = owner.format(numbers=numbers, boot=numbers.partition("/")[0], pid=os.getpid(), began=began)
    assert claims_module._is_dead(text) == dead


def test_two_processes_pay_once_for_calls_longer_than_a_claim(server, environment, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 2)
    server.latency_s = 1.5
    code = (
        "import sys; from evaluators.asking import claims; claims.CLAIM_S = 0.6\n"
        "from evaluators.command import main; sys.exit(main(sys.argv[1:], prog='judge'))"
    )
    words = ("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--preset", "single", "--out")
    started = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, words), out], env=environment, cwd=tmp_path)
        for out in ("one", "two")
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert len(server.delivered) == len(set(server.delivered)) == 2
    verdicts = [{record["id"]: record["verdict"] for record in records(tmp_path / out)} for out in ("one", "two")]
    assert verdicts[0] == verdicts[1]


class Locked:
    """Another process that holds the write lock: as seen from SQLite, another connection is one."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("BEGIN EXCLUSIVE" if self._mode() != "wal" else "BEGIN IMMEDIATE")

    def _mode(self) -> str:
        return self._db.execute("PRAGMA journal_mode").fetchone()[0]

    def release(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


@pytest.mark.parametrize("remote", [False, True])
def test_a_locked_cache_does_not_stop_the_event_loop(path, monkeypatch, remote):
    if remote:
        monkeypatch.setattr(database_module, "file_system", lambda path: "nfs4")
    cache = Cache(path)
    locked = Locked(path)

    async def run():
        turns = 0
        put = asyncio.create_task(cache.put("k", "j", REPLY, None))
        while turns < 50:  # others go on while it waits
            await asyncio.sleep(0.001)
            turns += 1
        assert not put.done()
        locked.release()
        await asyncio.wait_for(put, 30)
        assert await cache.get("k") == REPLY

    asyncio.run(run())


def test_a_cache_that_stays_locked_is_one_clear_line(path, monkeypatch):
    monkeypatch.setattr(database_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(database_module, "_TOLD_AFTER_S", 0.01)
    cache, told = Cache(path), []
    cache.database.say = told.append
    locked = Locked(path)
    with pytest.raises(RunError, match=r"--cache .*: another process has locked it for"):
        asyncio.run(cache.put("k", "j", REPLY, None))
    assert len(told) == 1 and "waiting for another process" in told[0]
    locked.release()


def test_a_run_waits_for_a_lock_and_goes_on(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    path = tmp_path / "c.sqlite"
    Cache(path).close()
    locked = Locked(path)
    timer = threading.Timer(1.0, locked.release)
    timer.start()
    words = ("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--cache", path, "--out", "out")
    done = judge(*words, "--preset", "single")
    timer.join()
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "out")) == 3 == len(server.delivered)


def test_a_run_whose_cache_stays_locked_ends_with_one_line(judge, server, tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "PATIENCE_S", 0.3)
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    path = tmp_path / "c.sqlite"
    reply, taken = server.reply, []

    def lock_then_reply(body):
        if not taken:
            taken.append(Locked(path))
        return reply(body)

    server.reply = lock_then_reply
    words = ("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--cache", path, "--out", "out")
    done = judge(*words, "--preset", "single")
    taken[0].release()
    assert done.returncode == 1 and "another process has locked it" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "lustre", "gpfs", "beegfs", "fuse.sshfs", "ceph"])
def test_file_systems_of_several_hosts_get_no_write_ahead_log(path, monkeypatch, kind):
    monkeypatch.setattr(database_module, "file_system", lambda path: kind)
    cache = Cache(path)
    assert kind in cache.database.note and "--cache names another file" in cache.database.note
    assert _journal(path) == "delete"

    async def run():
        await asyncio.gather(*(cache.put(str(number), "j", REPLY, None) for number in range(20)))
        assert await cache.claim("3") == REPLY and await cache.claim("x") is None

    asyncio.run(run())
    cache.close()
    assert Cache(path).summary()[0][1] == 20


def _journal(path: Path) -> str:
    db = sqlite3.connect(path)
    try:
        return db.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        db.close()


def test_a_log_that_was_written_ahead_is_taken_over(path, monkeypatch):
    first = Cache(path)
    asyncio.run(first.put("k", "j", REPLY, None))
    assert first.database.note is None and _journal(path) == "wal"
    monkeypatch.setattr(database_module, "file_system", lambda path: "nfs")
    beside = Cache(path)  # the other one still has it open
    assert asyncio.run(beside.get("k")) == REPLY
    beside.close(), first.close()
    alone = Cache(path)
    assert asyncio.run(alone.get("k")) == REPLY and _journal(path) == "delete"


def test_where_no_memory_can_be_shared_there_is_no_write_ahead_log(path):
    """As on file systems that nobody has heard of: the shared memory's file cannot be made."""
    path.parent.mkdir()
    Path(f"{path}-shm").mkdir()
    cache = Cache(path)
    assert "without write-ahead logging" in cache.database.note
    asyncio.run(cache.put("k", "j", REPLY, None))
    assert asyncio.run(Cache(path).get("k")) == REPLY


def test_the_note_is_told_by_the_run(judge, server, tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "file_system", lambda path: "nfs")
    pairs = write_pairs(tmp_path / "p.jsonl", 2)
    done = judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "out")
    assert done.returncode == 0 and "on nfs, which several hosts share" in done.stdout


def test_the_file_system_of_a_path_is_that_of_its_longest_mount(tmp_path, monkeypatch):
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        f"2 1 0:5 / {tmp_path} rw shared:1 - nfs4 h:/x rw",
        f"3 2 0:6 / {tmp_path}/a\\040b rw - tmpfs tmpfs rw",
    )
    read_text = Path.read_text

    def fake(self, *args, **more):
        return "\n".join(lines) + "\n" if str(self) == "/proc/self/mountinfo" else read_text(self, *args, **more)

    monkeypatch.setattr(Path, "read_text", fake)
    assert database_module.file_system(tmp_path / "c") == "nfs4"
    assert database_module.file_system(tmp_path / "a b" / "c") == "tmpfs"
    assert database_module.file_system(Path("/elsewhere")) == "ext4"


@pytest.mark.parametrize("old", [False, True])
def test_pruning_beside_a_run(path, old):
    """Replies go in batches, and the file shrinks while another process has it open and writes."""
    if old:  # made before files could be shrunk in steps
        path.parent.mkdir()
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, judge TEXT NOT NULL, created REAL NOT NULL, "
                   "reply TEXT NOT NULL, cost TEXT) WITHOUT ROWID")  # fmt: skip
        db.execute("PRAGMA user_version=1")
        db.commit()
        db.close()
    beside = Cache(path)
    big = Reply("x" * 2000, Usage(1, 1))

    async def fill():
        for number in range(1200):
            await beside.put(str(number), "j", big, None)
        await beside.put_abilities("openai:j@u", {"context": 5})

    asyncio.run(fill())
    pruning = Cache(path)
    assert pruning.prune(before=time.time() + 1, judge=None) == 1200
    asyncio.run(beside.put("new", "j", REPLY, None))
    assert asyncio.run(beside.abilities("openai:j@u")) is None
    pruning.close(), beside.close()
    assert path.stat().st_size < 500_000
    assert Cache(path).summary()[0][1] == 1


def test_the_reply_that_stands_is_the_one_that_counts(path):
    """Two processes have paid for one call, because a claim had lapsed: verdicts and cache hold the same reply."""
    one, two = Cache(path), Cache(path)
    other = Reply("other", Usage(2, 2))

    async def run():
        assert await one.put("k", "j", REPLY, None) == REPLY
        assert await two.put("k", "j", other, None) == REPLY
        assert await two.put("k", "j", other, None, replace=True) == other
        assert await one.get("k") == other

    asyncio.run(run())


def test_a_disk_or_a_file_that_is_no_good_is_one_line(path):
    cache = Cache(path)
    asyncio.run(cache.put("k", "j", REPLY, None))
    cache.database._db.execute("DROP TABLE replies")
    with pytest.raises(RunError, match=r"--cache .*: no such table.*name another file"):
        asyncio.run(cache.get("k"))
