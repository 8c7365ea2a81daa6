"""What a command line answers: fast, one line for a wrong flag, texts wrapped once."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from evaluators import command
from lab import cli

PROGRAM = """
import sys
from lab import cli
try:
    code = cli.main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(sorted({"torch", "transformers"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("words", [["--help"], ["--optim.lrr", "1"], ["--optim.lr", "x"], ["--optim.lr", "-1"]])
def test_no_answer_to_a_command_line_waits_for_torch(words):
    done = subprocess.run([sys.executable, "-c", PROGRAM, "pretrain", *words], capture_output=True, text=True)
    assert done.returncode == (0 if words == ["--help"] else 2)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_schemes_of_a_command_line_leave_the_package_whole():
    program = (
        "from lab.light import without_torch\n"
        "with without_torch():\n"
        "    from lab.config.scheme import NormalizationConfig\n"
        "import normalization, transformers, sys\n"
        "assert isinstance(NormalizationConfig().spec(), normalization.NormalizationSpec)\n"
        "transformers.AutoConfig.for_model('depthlab_llama')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--optim.learning-rate", "--optim.lr"),
        ("--learning_rate", "--optim.lr"),
        ("--optim.lrr", "--optim.lr"),
        ("--lr", "--optim.lr"),
        ("--seed", "--train.seed"),
        ("--config-file", "--config"),
        ("--resum", "--resume"),
        ("--optim.weight_decai", "--optim.weight-decay"),
    ],
)
def test_a_wrong_flag_gets_one_line_with_the_nearest(wrong, meant, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["pretrain", wrong, "3"])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and len(said.splitlines()) == 1
    assert said.startswith(f"error: {wrong}: no such flag; did you mean {meant}?")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pretrain --optim.lr abc", "--optim.lr abc: must be a number"),
        ("pretrain --optim.lr -1", "--optim.lr -1.0: must be positive"),
        ("pretrain --optim.lr", "--optim.lr: needs a value: a number"),
        ("pretrain --train.steps=1.5", "--train.steps 1.5: must be a whole number"),
        ("pretrain --optim.name adan", "--optim.name adan: unknown; did you mean adam? choose from adamw, adam"),
        ("pretrain --data.isolate-documents yes", "--data.isolate-documents yes: takes no value; write"),
        ("export", "PATH, --out: missing; needed: a checkpoint, or a run folder"),
        ("prune x --outt y", "--outt: no such flag; did you mean --out?"),
        ("prune --outt y", "--outt: no such flag; did you mean --out?"),
        ("diagnose x --blocks", "--blocks: needs a value: a whole number"),
        ("judge run --depth a", "--depth a: must be a whole number"),
        ("judge run --judg x", "--judg: no such flag; did you mean --judge?"),
        ("judge run --perspective sen", "--perspective sen: unknown; did you mean seen? choose from own, seen"),
        ("judge run --scale 1", "--scale 1: needs a value: 2 values, each a whole number"),
        ("judge metrics --drawz 5", "--drawz: no such flag; did you mean --draws?"),
        ("judge power --pilott a b", "--pilott: no such flag; did you mean --pilot?"),
        ("judge power --accuracies 0.1", "--accuracies 0.1: must be 2 values, each a number"),
        ("judge report", "RUN: missing; needed: the run's folder"),
    ],
)
def test_a_wrong_value_gets_one_line(words, said, capsys):
    try:
        code = cli.main(words.split())
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    assert code == 2 and told.out == ""
    assert told.err.startswith(f"error: {said}") and len(told.err.splitlines()) == 1


COMMANDS = [
    *([name] for name in cli.COMMANDS if name != "judge"),
    *(["judge", name] for name in command.COMMANDS),
]


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_is_wrapped_once_and_positionals_have_names(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*name, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines()[1:])) <= 80  # the first is the usage
    assert "default: ''" not in text and "(default: )" not in text and "(default: None)" not in text
    assert not re.search(r"^\W*STR( |$)", text, re.MULTILINE)
    lines = [line.strip("│ ") for line in text.splitlines()]
    # A line that ends early goes on in the next only where a word would not have fitted.
    early = [
        (line, after)
        for line, after in pairwise(lines)
        if line
        and after
        and line[0] != "-"
        and line[-1].isalpha()
        and after[0].islower()
        and len(line) + len(after.split()[0]) < 45
    ]
    assert early == []


def test_the_config_file_is_among_the_flags(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    assert re.search(r"^\W*--config ", capsys.readouterr().out, re.MULTILINE)
