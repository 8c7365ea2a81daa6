from __future__ import annotations

import subprocess
import sys

import pytest

from lab import cli


def test_help_lists_every_subcommand_and_loads_no_heavy_package():
    code = (
        "import sys; from lab import cli; cli.main(['--help']); "
        "print(sorted({'torch', 'transformers', 'tyro'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    for name in cli.COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_has_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert not caught.value.code
    assert f"depthlab {name}" in capsys.readouterr().out


def test_a_wrong_subcommand_is_answered_with_the_nearest(depthlab):
    done = depthlab("pretrian")
    assert done.returncode == 2
    assert "Did you mean pretrain?" in done.stderr and "Traceback" not in done.stderr


def test_errors_are_one_message_without_a_traceback(depthlab, flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").touch()
    done = depthlab("pretrain", *flags())
    assert done.returncode == 1
    assert done.stderr.startswith("error: --run-dir") and len(done.stderr.splitlines()) == 1
    wrong = depthlab("pretrain", *flags("other", data__source="nowhere.jsonl"))
    assert wrong.returncode == 1 and wrong.stderr.startswith("error:") and "nowhere.jsonl" in wrong.stderr


def test_skipped_documents_are_counted_and_the_first_is_named(depthlab, flags, corpus_file, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "good.jsonl").write_bytes(corpus_file.read_bytes())
    (tmp_path / "text" / "broken.txt").write_bytes(b"caf\xe9")
    (tmp_path / "text" / "nothing.txt").touch()
    done = depthlab("pretrain", *flags(data__source=tmp_path / "text", train__steps=1))
    assert done.returncode == 0, done.stderr
    assert "1 invalid UTF-8 (first in broken.txt), 1 empty (first in nothing.txt)" in done.stdout


def test_describe_prints_the_plan_of_a_run(depthlab, flags):
    assert (
        depthlab(
            "pretrain", *flags(normalization__scheme="mix", normalization__post_layers=2, train__steps=1)
        ).returncode
        == 0
    )
    done = depthlab("describe", flags()[1])
    assert done.returncode == 0
    assert done.stdout.count("N(x + F(x))") == 2 and done.stdout.count("x + F(N(x))") == 1
    missing = depthlab("describe", "no-such-folder")
    assert missing.returncode == 1 and "no-such-folder" in missing.stderr and "Traceback" not in missing.stderr
