"""One writer at a time: real processes, one of them killed; and machines that cannot be asked."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab.errors import RunError
from lab.runfolder import writer
from lab.runfolder.writer import NAME, Holder, Writer, is_empty

HOLD = """
import sys, time
from pathlib import Path
from lab.runfolder.writer import Writer
with Writer(Path(sys.argv[1])):
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holding(tmp_path: Path):
    """Another process that writes in the run's folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writes\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_in_one_line_that_names_the_first(holding, tmp_path: Path) -> None:
    told = f"^--run-dir {tmp_path}/run: process {holding.pid} on .* writes there since .*; wait .*another folder$"
    with pytest.raises(RunError, match=told):
        Writer(tmp_path / "run").__enter__()
    holding.communicate("")  # it ends in order
    with Writer(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / NAME).read_text())["process"] != holding.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_after_a_kill_the_next_writer_begins_at_once(holding, tmp_path: Path, reaped: bool) -> None:
    holding.kill()
    if reaped:
        holding.wait()
    else:
        while b"Z" not in Path(f"/proc/{holding.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]:
            time.sleep(0.01)
    with Writer(tmp_path / "run"):
        assert is_empty(tmp_path / "run")
    assert not (tmp_path / "run" / NAME).exists()


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with Writer(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    with Writer(tmp_path):
        pass
    assert tmp_path.exists()


def test_a_process_number_that_is_used_again_is_not_the_writer(tmp_path: Path) -> None:
    other = dataclasses.replace(Holder.here(), begun=1.0)
    (tmp_path / NAME).write_text(json.dumps(dataclasses.asdict(other)))
    with Writer(tmp_path):
        pass


def test_a_process_cannot_write_twice(tmp_path: Path) -> None:
    with Writer(tmp_path), pytest.raises(RunError, match="writes there since"):
        Writer(tmp_path).__enter__()
    with Writer(tmp_path):
        pass


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a writer on another machine."""
    monkeypatch.setattr(writer, "BEAT_S", 0.05)
    other = dataclasses.replace(Holder.here(), host="node-b", machine="node-b boot 1")
    (tmp_path / NAME).write_text(json.dumps(dataclasses.asdict(other)))
    return tmp_path


def test_a_writer_on_another_machine_that_gives_signs_of_life_is_refused(elsewhere: Path) -> None:
    end = threading.Event()

    def beat() -> None:
        while not end.wait(0.01):
            (elsewhere / NAME).touch()

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(RunError, match="on node-b writes there"):
        Writer(elsewhere).__enter__()
    end.set()
    beating.join()


def test_a_writer_on_another_machine_that_gives_none_is_gone(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SILENT_S", 0.3)
    with Writer(elsewhere):
        assert json.loads((elsewhere / NAME).read_text())["machine"] == writer._machine()


def test_a_file_that_is_empty_or_damaged_belongs_to_nobody_for_long(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "SILENT_S", 0.3)
    for content in ("", "{", "[1]", '{"host": 1}'):
        (tmp_path / NAME).write_text(content)
        with Writer(tmp_path):
            pass


def test_of_many_that_find_the_same_writer_gone_one_takes_its_place(tmp_path: Path) -> None:
    gone = dataclasses.replace(Holder.here(), begun=1.0)
    (tmp_path / NAME).write_text(json.dumps(dataclasses.asdict(gone)))
    writers, refused, gate = [], [], threading.Barrier(8)

    def take() -> None:
        mine = Writer(tmp_path)
        gate.wait()
        try:
            writers.append(mine.__enter__())
        except RunError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for held in writers:
        held.__exit__()
    assert len(writers) == 1 and len(refused) == 7


LOSE = """
import json, sys, time
from pathlib import Path
from lab.runfolder import writer
writer.BEAT_S = 0.05
folder = Path(sys.argv[1])
with writer.Writer(folder):
    held = json.loads((folder / writer.NAME).read_text())
    (folder / writer.NAME).write_text(json.dumps(held | {"token": "another", "host": "node-b"}))
    time.sleep(60)
print("went on")
"""


def test_a_writer_that_was_taken_for_gone_ends_instead_of_writing_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOSE, str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "on node-b writes there now" in done.stderr and done.stdout == ""


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=f"--run-dir {tmp_path}/file/run: cannot be written: Not a directory"):
        Writer(tmp_path / "file" / "run").__enter__()
