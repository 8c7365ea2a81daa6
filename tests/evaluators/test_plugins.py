"""Judges, presets and formats from files and from installed packages, through the real command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluators.judges import Backend, judges, make
from evaluators.judges.protocol import check
from evaluators.registry import Plugin, use
from tests.evaluators.conftest import ROOT, Done, records

DOCS = (ROOT / "docs" / "judging.md").read_text()
CODE = re.search(r"```python\n# mine\.py\n(.*?)```", DOCS, re.DOTALL)[1]
POINTS = re.search(r"```toml\n(\[project\.entry-points.*?)```", DOCS, re.DOTALL)[1]
COMMAND = re.search(r"^depthlab judge run --plugin mine\.py .*$", DOCS, re.MULTILINE)[0]
CHECK = re.search(r"```python\n(from evaluators\.judges import Backend\n.*?)```", DOCS, re.DOTALL)[1]
DATA = "q1;one two three;oneveryverylongword\nq2;a;b c\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "pairs.txt").write_text(DATA)
    return tmp_path


def _words(*more: object, out: str) -> list[object]:
    """The documented command, into another folder."""
    return [word if word != "verdicts/mine" else out for word in shlex.split(COMMAND)[2:]] + list(more)


def test_the_documented_file_works(judge: Callable[..., Done], folder: Path) -> None:
    done = judge(*_words(out="r"))
    assert done.returncode == 0, done.stderr
    # By words, with the option: response 1 of q1 is longer, response 2 of q2.
    assert [record["verdict"]["winner"] for record in records(folder / "r")] == [1, 2]
    [network] = {json.dumps(record["run"]["network"]) for record in records(folder / "r")}
    assert json.loads(network)["doubt"] == 0.5 and json.loads(network)["class"].endswith(".Careful")
    settings = yaml.safe_load((folder / "r" / "config.yaml").read_text())
    assert settings["plugin"][0]["path"] == "mine.py" and len(settings["plugin"][0]["sha256"]) == 64
    assert "2 samples are judged already" in judge(*_words(out="r")).stdout.replace("2 of 2", "2")
    assert judge("run", "--config", "r/config.yaml").returncode == 0
    by_signs = judge(*_words("--option", "words=false", out="s"))
    assert by_signs.returncode == 0, by_signs.stderr
    assert [record["verdict"]["winner"] for record in records(folder / "s")] == [2, 2]
    # Another file under the path: the folder, and its settings, are another's.
    (folder / "mine.py").write_text(CODE + "# changed\n")
    again = judge(*_words(out="r"))
    assert again.returncode == 1 and "plugin" in again.stderr and "name another folder" in again.stderr
    kept = judge("run", "--config", "r/config.yaml")
    assert kept.returncode == 2 and "another file than these settings were made with" in kept.stderr
    # A folder is read without its code.
    (folder / "mine.py").write_text("raise SystemExit('run')")
    for words in (("metrics", "r", "--draws", 200), ("show", "--out", "r"), ("report", "r", "--draws", 200)):
        assert judge(*words).returncode == 0, words


def test_sweep_and_leaderboard_take_plugins_and_sweep_its_own_file(judge: Callable[..., Done], folder: Path) -> None:
    (folder / "c.yaml").write_text(
        "data: pairs.txt\nformat: table\nformat_option: {separator: ';'}\nplugin: mine.py\njudge: longer:x\n"
        "network: {preset: careful, preset-option: {doubt: 2}}\naxes: {widths: [1], depths: [1, 2]}\ndraws: 300\n"
    )
    done = judge("sweep", "--config", "c.yaml", "--out", "s")
    assert done.returncode == 0, done.stderr
    points = json.loads((folder / "s" / "sweep.json").read_text())["points"]
    assert {point["depth"] for point in points} == {1, 2}
    narrower = judge("sweep", "--config", "c.yaml", "--out", "t", "--depths", 1)
    assert narrower.returncode == 0 and "depth 2" not in narrower.stdout, narrower.stderr
    named = CODE.replace(
        '"response2": response2}', '"response2": response2, "system1": "a", "system2": "b", "human": 1}'
    )
    (folder / "named.py").write_text(named)
    words = ("--data", "pairs.txt", "--plugin", "named.py", "--format", "table", "--format-option", "separator=;")
    board = judge("leaderboard", *words, "--draws", 200)
    assert board.returncode == 0 and "2 comparisons" in board.stdout, board.stderr


def test_the_protocol_can_be_checked_as_documented(folder: Path) -> None:
    # Files of one second and size would be taken for one.
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for broken, told in (
        (CODE.replace("return Reply(text", "return Reply('  '"), "a reply is empty"),
        (CODE.replace("estimated_tokens(text)", "0"), "count_tokens"),
        (CODE.replace("return Abilities(structured=False)", "pass"), "abilities gives None"),
        (CODE.replace("call.place.pair.id, call", "__import__('random').random(), call"), "coordinates differ"),
    ):
        assert broken != CODE
        (folder / "mine.py").write_text(broken)
        done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and told in done.stderr.splitlines()[-1], done.stderr


def test_a_judge_of_other_code_is_another_to_the_cache(folder: Path) -> None:
    [first] = use([Plugin(str(folder / "mine.py"))])
    before = make("longer:x", Backend()).identity
    (folder / "mine.py").write_text(CODE + "\n")
    [second] = use([Plugin(str(folder / "mine.py"))])
    after = make("longer:x", Backend()).identity
    assert first.sha256 in before and second.sha256 in after and before != after
    check(make("longer:x", Backend()))
    assert "longer" in judges.names()


BROKEN = {
    "import nothing_like_it": "line 1: ModuleNotFoundError",
    "x = 1\ndef f(:": "line 2: SyntaxError",
    "x = 1": "registers nothing",
    "\n\nraise SystemExit(3)": "line 3: SystemExit",
    "def f():\n    return 1 / 0\nf()": "line 2: ZeroDivisionError",
    "from evaluators.judges import judge\njudge('openai')(print)": "judge openai is built in",
    "from evaluators.presets import architecture as a\na('x')(print)\na('x')(print)": "registers preset x twice",
    "raise ValueError('two\\nlines\\x1b[2J')": "line 1: ValueError: two lines",
}


@pytest.mark.parametrize(("code", "told"), BROKEN.items())
def test_a_broken_file_is_one_line(judge: Callable[..., Done], folder: Path, code: str, told: str) -> None:
    (folder / "mine.py").write_text(code)
    done = judge(*_words(out="r"))
    assert done.returncode == 2 and f"--plugin mine.py: {told}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "\x1b" not in done.stderr


FAULTS = {
    # In the file -> in its place, and what is told.
    ("self.name = f", "self.nam = f"): "AttributeError",
    ("def __init__(self, argument, backend)", "def __init__(self, argument)"): "TypeError",
    ("    def count_tokens", "    def count_token"): "has no count_tokens",
    ("return Careful(depth=1, roles=())", "return 3"): "--preset careful: gives a int, not a Network",
    ("return Careful(depth=1, roles=())", "return Careful(dept=1)"): "--preset careful:",
    ("line.split(separator)", "line.split(separator)[:2]"): "--data pairs.txt: format table:",
    ("yield number, {", "yield number, {**None, "): "line ",
}


@pytest.mark.parametrize(("change", "told"), FAULTS.items())
def test_what_fails_in_a_plugin_is_one_line(
    judge: Callable[..., Done], folder: Path, change: tuple[str, str], told: str
) -> None:
    assert change[0] in CODE
    (folder / "mine.py").write_text(CODE.replace(*change))
    done = judge(*_words(out="r"))
    assert done.returncode in (1, 2) and told in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--preset-option dout=1", "preset careful takes doubt"),
        ("--format-option seperator=;", "format table takes separator"),
        ("--preset-option depth=3", "preset careful takes doubt"),
        ("--plugin nowhere.py", "--plugin nowhere.py: No such file"),
        ("--plugin mine.py copy.py", "judge longer stands in mine.py already"),
        ("--judge longr:x", "did you mean longer?"),
    ],
)
def test_wrong_flags_are_told(judge: Callable[..., Done], folder: Path, flag: str, told: str) -> None:
    (folder / "copy.py").write_text(CODE + "# another\n")
    done = judge(*_words(*flag.split(" "), out="r"))
    assert done.returncode == 2 and told in done.stderr, done.stderr


def test_a_failing_judge_is_the_samples(judge: Callable[..., Done], folder: Path) -> None:
    fails = CODE.replace("sizes = [len(", "sizes = 1 / (call.place.pair.query != 'q1') and [len(")
    (folder / "mine.py").write_text(fails)
    done = judge(*_words(out="r"))
    assert done.returncode == 0, done.stderr
    found = {record["query"]: record for record in records(folder / "r")}
    assert found["q1"]["verdict"]["scores"] is None and found["q2"]["verdict"]["winner"] == 2
    assert "ZeroDivisionError" in json.dumps(found["q1"])


def test_a_plugin_that_builds_on_our_modules_takes_nothing_from_us(folder: Path, environment: dict[str, str]) -> None:
    """In a process in which it is the first to import them."""
    ours = "from evaluators.judges.scripted import Scripted\n"
    (folder / "mine.py").write_text(ours + CODE + "\n\n@judge('mine')\nclass Mine(Scripted):\n    pass\n")
    (folder / "s.jsonl").write_text('{"reply": "Score of Assistant 1: 2\\nScore of Assistant 2: 7"}\n')
    for name in ("scripted", "mine"):
        words = [f"{name}:s.jsonl" if word == "longer:x" else word for word in _words(out=name)]
        words = [word for word in words if word not in ("--option", "words=true")]
        command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [record["verdict"]["winner"] for record in records(folder / name)] == [0, 0]


@pytest.fixture
def installed(folder: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`depthlab` where a package is installed that has the documented entry points."""
    site = folder / "site"
    info = site / "longer_judge-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / "mine.py").rename(site / "mine.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: longer-judge\nVersion: 1.2\n")
    groups = POINTS.replace("project.entry-points.", "").replace('"', "")
    (info / "entry_points.txt").write_text(groups)

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
        command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words)]
        return subprocess.run(command, cwd=folder, env=environment | paths, capture_output=True, text=True)

    return run


def test_installed_packages_offer_all_three(
    installed: Callable[..., subprocess.CompletedProcess[str]], folder: Path
) -> None:
    words = [word for word in _words(out="r") if word not in ("--plugin", "mine.py")]
    done = installed(*words)
    assert done.returncode == 0, done.stderr
    [run] = {json.dumps(record["run"]) for record in records(folder / "r")}
    assert [record["verdict"]["winner"] for record in records(folder / "r")] == [1, 2]
    assert json.loads(run)["judges"] == ["longer:x words=True (longer-judge 1.2)"]
    assert json.loads(run)["plugins"] == {
        "preset careful": "longer-judge 1.2",
        "data format table": "longer-judge 1.2",
    }
    # What is broken and not asked for disturbs nobody; asked for, it is one line.
    (folder / "site" / "mine.py").write_text("\nimport nothing_like_it\n")
    assert installed("run", "--help").returncode == 0
    broken = installed(*words)
    assert broken.returncode == 2 and len(broken.stderr.strip().splitlines()) == 1
    assert "longer-judge 1.2" in broken.stderr and "mine.py line 2: ModuleNotFoundError" in broken.stderr
