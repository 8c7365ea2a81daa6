from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.report.read import read as read_run
from lab.runfolder import metrics

LINES = [json.dumps({"step": step, "train/loss": 5.0 - step}) for step in range(1, 5)]

DAMAGE = {
    "a last line that was cut short": (lambda lines: [*lines, '{"step": 5, "tok'], "line 5 "),
    "a line in the middle": (lambda lines: [*lines[:2], '{"step": 2, "tra', *lines[2:]], "line 3 "),
    "bytes that are no text": (lambda lines: [*lines[:2], "\udcff\udcfe", *lines[2:]], "line 3 "),
    "a value that is no record": (lambda lines: ["3", *lines, "[1]"], "2 lines (first: 1) "),
    "holes of a power cut": (lambda lines: [*lines[:2], "\0" * 40, *lines[2:]], "line 3 "),
    "a hole in a line": (lambda lines: [*lines[:2], "\0" * 9 + lines[3], *lines[2:]], "line 3 "),
    "a step that is a text": (lambda lines: [*lines[:2], '{"step": "3"}', *lines[2:]], "line 3 "),
    "a step that is none": (lambda lines: [*lines[:2], '{"step": null}', *lines[2:]], "line 3 "),
    "a step in parts": (lambda lines: [*lines[:2], '{"step": 2.5}', *lines[2:]], "line 3 "),
    "a step that is true": (lambda lines: [*lines[:2], '{"step": true}', *lines[2:]], "line 3 "),
    "tokens that are a list": (lambda lines: [*lines[:2], '{"step": 2, "tokens": []}', *lines[2:]], "line 3 "),
    "a line without end": (lambda lines: [*lines[:2], "[" * 100_000, *lines[2:]], "line 3 "),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_lines_are_told_and_the_others_read(what: str, tmp_path: Path) -> None:
    damage, told = DAMAGE[what]
    text = "\n".join(damage(LINES)) + "\n"
    (tmp_path / metrics.NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    said: list[str] = []
    assert [record["step"] for record in metrics.read(tmp_path, said.append)] == [1, 2, 3, 4]
    assert len(said) == 1 and told in said[0]
    assert said[0] in read_run(tmp_path).notices

    again: list[str] = []
    assert metrics.rewind(tmp_path, 3, again.append) == 1 and again == said
    assert [record["step"] for record in metrics.read(tmp_path)] == [1, 2, 3]
    assert json.loads((tmp_path / metrics.SUPERSEDED).read_text())["step"] == 4


def test_whole_files_and_none_say_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    assert metrics.read(tmp_path, said.append) == []
    (tmp_path / metrics.NAME).write_text("\n".join(LINES))
    assert len(metrics.read(tmp_path, said.append)) == 4 and said == []


def test_what_is_written_after_a_line_that_was_cut_short_is_not_lost_with_it(tmp_path: Path) -> None:
    (tmp_path / metrics.NAME).write_text(f'{LINES[0]}\n{{"step": 2, "tra')
    log = metrics.MetricsLog(tmp_path)
    log.write({"step": 2, "train/loss": 3.0})
    log.close()
    said: list[str] = []
    assert [record["step"] for record in metrics.read(tmp_path, said.append)] == [1, 2]
    assert said == ["metrics.jsonl: line 2 cut short or damaged; left out"]
    metrics.MetricsLog(tmp_path).close()
    assert (tmp_path / metrics.NAME).read_text().count("\n") == 3


def test_what_a_full_disk_does_not_take_is_written_later_whole(tmp_path: Path) -> None:
    log = metrics.MetricsLog(tmp_path)
    log.write({"step": 1})
    real = log._file
    with Path("/dev/full").open("ab", buffering=0) as full:
        log._file = full
        for step in (2, 3):
            with pytest.raises(OSError, match="No space left"):
                log.write({"step": step})
    log._file = real
    log.write({"step": 4})
    log.close()
    assert [record["step"] for record in metrics.read(tmp_path)] == [1, 2, 3, 4]
