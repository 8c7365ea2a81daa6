from __future__ import annotations

import dataclasses

import pytest
import yaml

from lab.config.read import dump, load, parse
from lab.config.resume import differences
from lab.config.scheme import NormalizationConfig
from lab.config.sections import OptimConfig, RunConfig, TrainConfig
from lab.errors import ConfigError
from normalization import schemes


def written(tmp_path, text: str):
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_setting_survives_the_yaml_file(tmp_path):
    run = RunConfig(
        run_dir="runs/x",
        normalization=NormalizationConfig(scheme="mix", post_layers=4),
        optim=OptimConfig(lr=3e-4, clip=None, betas=(0.8, 0.9)),
        train=TrainConfig(tokens=12345),
    )
    assert load(written(tmp_path, dump(run))) == run


def test_flags_override_the_file(tmp_path):
    file = written(tmp_path, "optim: {lr: 1e-4, floor: 0.2}\nnormalization: {scheme: mix, post-layers: 2}\n")
    run = parse(["--config", str(file), "--optim.lr", "5e-4", "--train.steps", "7"], prog="test")
    assert (run.optim.lr, run.optim.floor, run.train.steps) == (5e-4, 0.2, 7)
    assert run.normalization.spec().options["post_layers"] == 2


def test_one_source_may_be_written_without_a_list(tmp_path):
    assert load(written(tmp_path, "data: {source: builtin}")).data.source == ("builtin",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: {stepz: 3}", ["train.stepz", "did you mean train.steps?"]),
        ("trian: {steps: 3}", ["trian", "did you mean train?"]),
        ("optim: {lr: fast}", ["optim.lr", "'fast'", "number"]),
        ("optim: {schedule: cosin}", ["optim.schedule", "'cosin'", "cosine"]),
        ("optim: {lr: -1}", ["--optim.lr", "-1", "positive"]),
        ("normalization: {scheme: lsn}", ["normalization.scheme", "'lsn'", "lns"]),
        ("normalization: {scheme: lns, alpha: 0.5}", ["lns", "alpha", "no options"]),
        ("normalization: {scheme: mix, alpha: 0.5, post_layers: 2}", ["alpha", "post_layers", "not both"]),
        ("train: {steps: 3, tokens: 9}", ["--train.steps", "--train.tokens", "exclude"]),
        ("train: {micro_batch: 3, global_batch: 4}", ["--train.global-batch 4", "multiple", "3"]),
        ("model: {preset: llama_130}", ["--model.preset llama_130", "Did you mean llama_130m?"]),
        ("model: {preset: tiny-4x33}", ["tiny-4x33", "multiple of 32"]),
        ("train: {steps: 20}\noptim: {warmup: 30}", ["--optim.warmup 30", "20", "peak"]),
        ("optim: {schedule: wsd, warmup: 0.9, decay: 0.9}", ["--optim.warmup 0.9 and --optim.decay 0.9"]),
        ("model: big", ["model", "'big'"]),
        ("- a list", ["keys and values"]),
        ("a: [", ["not a YAML file"]),
    ],
)
def test_impossible_files_are_refused_by_key_value_and_remedy(tmp_path, text, parts):
    with pytest.raises(ValueError) as caught:
        load(written(tmp_path, text)).normalization.spec().plans(4)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--config .*nowhere.yaml"):
        parse(["--config", str(tmp_path / "nowhere.yaml")], prog="test")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--optim.lrr", "3"], ["--optim.lrr", "--optim.lr"]),
        (["--normalization.scheme", "lsn"], ["lsn", "--normalization.scheme", "lns"]),
        (["--train.steps", "-3"], ["--train.steps -3", "positive"]),
        (["--optim.lr", "abc"], ["--optim.lr", "abc"]),
        (["--normalization.alpha", "0.5"], ["pre", "alpha"]),
    ],
)
def test_wrong_flags_stop_before_anything_starts(words, parts, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words, prog="test")
    assert caught.value.code == 2
    shown = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    for part in parts:
        assert part in shown


def test_every_scheme_option_is_a_flag_without_an_edit():
    flags = {field.name for field in dataclasses.fields(NormalizationConfig)}
    options = {name for scheme in schemes.names() for name in schemes.get(scheme).options}
    assert flags == {"scheme", "final_norm"} | options


def test_going_on_refuses_what_would_be_another_run_and_tells_the_rest():
    stored = RunConfig()
    assert differences(stored, dataclasses.replace(stored, resume="latest")) == []
    longer = dataclasses.replace(stored, train=TrainConfig(steps=600), optim=OptimConfig(lr=5e-4))
    assert differences(stored, longer) == ["optim.lr: 0.001 -> 0.0005", "train.steps: None -> 600"]
    other = dataclasses.replace(stored, normalization=NormalizationConfig(scheme="lns"))
    with pytest.raises(ConfigError, match=r"--normalization.scheme: cannot change .*pre -> lns"):
        differences(stored, other)


def test_the_saved_file_is_plain_yaml():
    stored = yaml.safe_load(dump(RunConfig()))
    assert stored["data"]["source"] == ["builtin"] and stored["optim"]["betas"] == [0.9, 0.95]


@pytest.mark.parametrize(
    ("words", "file", "asked"),
    [
        (["--resume", "latest"], "", ("latest", "runs/run")),
        (["--resume=auto", "--run_dir=a"], "", ("auto", "a")),
        (["--run-dir", "a", "--resume", "b", "--run-dir", "c"], "", ("b", "c")),
        ([], "resume: auto\nrun-dir: a\n", ("auto", "a")),
        (["--run-dir", "b"], "resume: auto\nrun_dir: a\n", ("auto", "b")),
        (["--resume", "None"], "resume: auto\n", None),
        ([], "run_dir: a\n", None),
    ],
)
def test_what_a_run_goes_on_from_is_asked_for_before_its_other_settings_are_read(tmp_path, words, file, asked):
    """The others depend on it: a global batch of 6 is impossible with the default micro-batch, not with the run's."""
    seen = []

    def stored(resume: str, run_dir: str) -> RunConfig:
        seen.append((resume, run_dir))
        return RunConfig(run_dir=run_dir, train=TrainConfig(micro_batch=2, global_batch=4, steps=50))

    given = [*words, "--config", str(written(tmp_path, file))] if file else words
    batch = ["--train.global-batch", "6"] if asked else []
    run = parse([*given, *batch], prog="test", stored=stored)
    assert seen == ([asked] if asked else [])
    assert run.train.global_batch == (6 if asked else 16)
    assert run.train.steps == (50 if asked else None)


def test_a_file_over_a_run_says_tokens_in_place_of_steps(tmp_path):
    stored = RunConfig(train=TrainConfig(steps=50), optim=OptimConfig(lr=0.5))
    file = written(tmp_path, "resume: latest\ntrain: {tokens: 999}\nnormalization: {scheme: pre}\n")
    run = parse(["--config", str(file)], prog="test", stored=lambda resume, run_dir: stored)
    assert (run.train.tokens, run.train.steps, run.optim.lr) == (999, None, 0.5)
    file = written(tmp_path, "resume: latest\ntrain: {stepz: 999}\n")
    with pytest.raises(ConfigError, match="did you mean train.steps"):
        parse(["--config", str(file)], prog="test", stored=lambda resume, run_dir: stored)
