"""`depthlab export` and `depthlab convert`: what is handed on computes the same, anywhere, or is not handed on."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import normalization
from lab import cli
from lab.checkpoint import load_model
from lab.commands.convert import Convert, convert
from lab.commands.export import Export, export
from lab.config.read import dump, load, parse
from lab.config.scheme import NormalizationConfig
from lab.config.sections import RunConfig
from lab.errors import ConfigError, RunError
from lab.training.run import pretrain
from normalization.remote import save_with_code
from tests.lab.conftest import environment
from tests.normalization import tiny

PROMPT = "def parse(text):"


@pytest.fixture
def run(settings, tmp_path: Path) -> Any:
    """Train one for a step, with a scheme; returns its folder."""

    def train(scheme: str, **options: Any) -> Path:
        chosen = {f"normalization__{name}": value for name, value in ({"scheme": scheme} | options).items()}
        steps = {"train__steps": 2, "eval__every": 0, "checkpoint__every": 0, "optim__lr": 0.05}
        assert pretrain(settings(f"run-{scheme}", **steps, **chosen))
        return tmp_path / f"run-{scheme}"

    return train


def checkpoint(folder: Path, scheme: str, family: str = "llama", **options: Any) -> str:
    tiny.patched(family, scheme, options).save_pretrained(folder)
    return str(folder)


def answers(model: Any, tokenizer: Any) -> dict[str, Any]:
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return {
            "logits": model(ids, use_cache=False).logits[0, -1, :8].tolist(),
            "text": tokenizer.decode(model.generate(ids, max_new_tokens=6, do_sample=False)[0]),
        }


def in_process(script: str, *words: Any, python: str = sys.executable, **variables: str) -> Any:
    """What a script prints as JSON, in a process of its own."""
    done = subprocess.run(
        [python, "-P", "-c", script, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(**variables),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOAD = f"""
import json, sys, torch
torch.set_num_threads(1)
assert sys.argv[2] == "trust" or not sys.modules.update(normalization=None)
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
kind, settings = LlamaForCausalLM, {{}}
if sys.argv[2] == "trust":
    kind, settings = AutoModelForCausalLM, {{"trust_remote_code": True}}
try:
    import normalization
except ImportError:
    pass
else:
    raise SystemExit("normalization is installed here")
model, tokenizer = kind.from_pretrained(sys.argv[1], **settings).eval(), AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer({PROMPT!r}, return_tensors="pt")["input_ids"]
with torch.no_grad():
    logits = model(ids, use_cache=False).logits[0, -1, :8].tolist()
text = tokenizer.decode(model.generate(ids, max_new_tokens=6, do_sample=False)[0])
print("\\n" + json.dumps({{"logits": logits, "text": text}}))
"""


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Python with everything that is installed here but depthlab: an editable install does not reach it."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    return {
        "python": str(folder / "venv" / "bin" / "python"),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HF_MODULES_CACHE": str(folder / "modules"),
    }


# -- export --to stock -------------------------------------------------------------------------------------------------


def test_a_trained_lns_run_becomes_a_stock_checkpoint(run, depthlab, tmp_path: Path) -> None:
    folder, out = run("lns"), tmp_path / "stock"
    done = depthlab("export", folder, "--to", "stock", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "same logits on random tokens" in done.stdout and "same logits on text tokens" in done.stdout
    assert done.stdout.splitlines()[-1] == f"wrote {out}; its README.md says how to load it"

    original, tokenizer = load_model(folder).eval(), AutoTokenizer.from_pretrained(folder / "tokenizer")
    expected = answers(original, tokenizer)
    found = in_process(LOAD, out, "stock")
    assert found["text"] == expected["text"]
    assert found["logits"] == pytest.approx(expected["logits"], abs=1e-4)
    unfolded = tiny.normalization.fold(normalization.from_pre_ln(LlamaForCausalLM.from_pretrained(out)))
    assert answers(unfolded, tokenizer)["logits"] == pytest.approx(expected["logits"], abs=1e-4)

    names = {path.name for path in out.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith((".bin", ".pt"))]
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "llama" and config["architectures"] == ["LlamaForCausalLM"]
    assert "normalization" not in config and "auto_map" not in config
    assert original.generation_config.to_diff_dict() == json.loads((out / "generation_config.json").read_text())

    card = (out / "README.md").read_text()
    for part in (
        "normalization-lns",
        "folded into the weights",
        "| scheme | lns |",
        "2 steps, 128 tokens",
        "llama, 3 layers",
        "largest difference of logits",
        "transformers 5.",
        'AutoModelForCausalLM.from_pretrained("stock")',
    ):
        assert part in card, part


def test_a_plain_pre_checkpoint_is_copied(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "pre", "pre")
    assert export(Export(source, out=str(tmp_path / "out"))) == {"random": 0.0}
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_dtype_of_the_weights(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "lns", "lns")
    measured = export(Export(source, out=str(tmp_path / "out"), dtype="bfloat16"))
    assert measured.keys() == {"random"} and 1e-4 < measured["random"] < 3e-2
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("scheme", ["mix", "post", "deepnorm", "peri", "mixed"])
def test_what_cannot_be_folded_is_answered_with_the_reason(tmp_path: Path, capsys, scheme: str) -> None:
    source = checkpoint(tmp_path / scheme, scheme)
    assert cli.main(["export", source, "--to", "stock", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: '{scheme}' cannot be folded into a stock 'llama' model: layer ")
    assert "--to remote-code" in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [scheme]


@pytest.mark.parametrize("to", ["stock", "remote-code"])
def test_an_existing_folder_is_never_overwritten(tmp_path: Path, capsys, to: str) -> None:
    source, out = checkpoint(tmp_path / "lns", "lns"), tmp_path / "out"
    out.mkdir()
    assert cli.main(["export", source, "--to", to, "--out", str(out)]) == 1
    assert f"--out {out}: exists already and is never overwritten" in capsys.readouterr().err
    assert not list(out.iterdir()) and {path.name for path in tmp_path.iterdir()} == {"lns", "out"}


def test_a_source_that_is_none(tmp_path: Path, capsys) -> None:
    assert cli.main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "nowhere" in said and said.startswith("error:")
    assert not list(tmp_path.iterdir())


def spoil_weights(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    fold = normalization.fold

    def wrong(model: Any) -> Any:
        folded = fold(model)
        with torch.no_grad():
            tiny.layers(folded)[3].mlp.down_proj.weight.mul_(factor)
        return folded

    monkeypatch.setattr(normalization, "fold", wrong)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_what_computes_something_else_is_not_handed_on(tmp_path: Path, monkeypatch, factor: float) -> None:
    source = checkpoint(tmp_path / "lns", "lns")
    spoil_weights(monkeypatch, factor)
    with pytest.raises(RunError, match="computes something else: its logits differ by .*Nothing was written"):
        export(Export(source, out=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["lns"]


def test_what_does_not_load_is_not_handed_on(tmp_path: Path, monkeypatch) -> None:
    def cut(model: Any, folder: Path, *, version: str) -> None:
        save_with_code(model, folder, version=version)
        (folder / "depthlab_layers.py").unlink()

    source = checkpoint(tmp_path / "peri", "peri")
    monkeypatch.setattr("normalization.remote.save_with_code", cut)
    with pytest.raises(RunError, match="does not load"):
        export(Export(source, out=str(tmp_path / "out"), to="remote-code"))
    assert [path.name for path in tmp_path.iterdir()] == ["peri"]


# -- export --to remote-code -------------------------------------------------------------------------------------------


def test_a_trained_run_with_its_code(run, bare: dict[str, str], tmp_path: Path) -> None:
    folder, out = run("mixed", layers="1 post, peri+lns"), tmp_path / "with-code"
    measured = export(Export(str(folder), out=str(out), to="remote-code"))
    assert measured.keys() == {"random", "text"} and max(measured.values()) < 1e-5
    expected = answers(load_model(folder).eval(), AutoTokenizer.from_pretrained(folder / "tokenizer"))
    assert in_process(LOAD, out, "trust", **bare) == expected
    # Nothing of the check is left, and depthlab loads the folder too, without running its code.
    assert not [path.name for path in out.iterdir() if path.name.startswith(".") or path.suffix == ".pyc"]
    here = AutoModelForCausalLM.from_pretrained(out)
    assert normalization.plans(here) == normalization.plans(load_model(folder))
    card = (out / "README.md").read_text()
    assert "trust_remote_code=True" in card and "| scheme | mixed {'layers': '1 post, peri+lns'} |" in card


BARE = """
import json, sys, shutil, torch
from pathlib import Path
torch.set_num_threads(1)
import transformers
from transformers import AutoModelForCausalLM
try:
    import normalization
    raise SystemExit("normalization is installed here")
except ImportError:
    pass
results = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    def logits(model):
        with torch.no_grad():
            return model(ids, use_cache=False).logits
    said = results[folder.name] = []
    expected = torch.load(folder / "expected.pt")
    ids = expected["ids"]
    model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    said.append(["report", not any(report.values())])
    said.append(["logits", torch.equal(logits(model), expected["logits"])])
    for use_cache in (True, False):
        found = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0, use_cache=use_cache)
        said.append(["generate", torch.equal(found, expected["generated"])])
    again = Path(sys.argv[2]) / folder.name
    model.save_pretrained(again)
    reloaded = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
    said.append(["again", torch.equal(logits(reloaded), expected["logits"])])
    loads = [lambda path: AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False)]
    loads += [getattr(transformers, expected["stock"]).from_pretrained, AutoModelForCausalLM.from_pretrained]
    for load in loads:
        for path in (folder, again):
            try:
                load(path)
                said.append(["refused", False])
            except Exception as error:
                said.append(["refused", "trust_remote_code" in str(error) or "normalization" in str(error)])
print("\\n" + json.dumps(results))
"""


def test_folders_with_code_in_a_bare_environment(bare: dict[str, str], tmp_path: Path) -> None:
    cases: list[tuple[str, str, dict[str, Any], bool]] = [
        ("llama", "pre", {}, True),
        ("llama", "mix", {"post_layers": 2}, True),
        ("llama", "post", {}, False),
        ("gpt2", "lns", {}, True),
        ("gemma", "peri", {}, True),
        ("olmo2", "deepnorm", {}, True),
        ("olmo2", "out", {}, True),
        ("mixtral", "mixed", {"layers": "2 post, deepnorm+peri+lns"}, True),
        ("gpt_neox", "lns", {}, True),
        ("phi3", "peri", {}, True),
    ]
    ids = tiny.tokens(2, 7)
    for family, scheme, options, final_norm in cases:
        model = tiny.patched(family, scheme, options, final_norm=final_norm)
        folder = tmp_path / "folders" / f"{family}-{scheme}"
        before = model.config.to_dict()
        save_with_code(model, folder, version="0")
        assert model.config.to_dict() == before, "the original is as it was"
        generated = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
        stock = type(tiny.stock(family)).__name__
        expected = {"ids": ids, "logits": tiny.logits(model, ids), "generated": generated, "stock": stock}
        torch.save(expected, folder / "expected.pt")
    found = in_process(BARE, tmp_path / "folders", tmp_path / "again", **bare)
    assert len(found) == len(cases)
    for name, said in found.items():
        assert len(said) == 11 and all(right for _, right in said), (name, said)


# -- convert -----------------------------------------------------------------------------------------------------------


def test_a_pre_ln_checkpoint_becomes_lns(tmp_path: Path, capsys) -> None:
    source, out = checkpoint(tmp_path / "pre", "pre"), tmp_path / "lns"
    assert cli.main(["convert", source, "--to", "lns", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "same logits on random tokens" in said and f"--model.checkpoint {out} --normalization.scheme lns" in said
    original, converted = load_model(source), load_model(out)
    assert normalization.spec(converted).scheme == "lns"
    assert torch.allclose(tiny.logits(converted), tiny.logits(original), atol=1e-4)
    for number, (layer, before) in enumerate(zip(tiny.layers(converted), tiny.layers(original), strict=True), start=1):
        assert torch.allclose(layer.input_layernorm.weight, before.input_layernorm.weight * number**0.5)
    assert "turned into LayerNorm Scaling" in (out / "README.md").read_text()
    # And back.
    export(Export(str(out), out=str(tmp_path / "back")))
    assert torch.allclose(tiny.logits(load_model(tmp_path / "back")), tiny.logits(original), atol=1e-4)


@pytest.mark.parametrize("scheme", ["mix", "post", "deepnorm", "peri", "sandwich", "mixed"])
def test_why_there_is_no_other_conversion(tmp_path: Path, scheme: str) -> None:
    source = checkpoint(tmp_path / "pre", "pre")
    with pytest.raises(ConfigError) as caught:
        convert(Convert(source, out=str(tmp_path / "out"), to=scheme))
    for part in (
        f"--to {scheme}: there is no conversion",
        "norm on the residual stream",
        "pretrain --model.checkpoint",
    ):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pre"]


@pytest.mark.parametrize(
    ("family", "scheme", "reason"),
    [("llama", "lns", "already carries"), ("llama", "post", "already carries"), ("olmo", "pre", "no weights")],
)
def test_what_cannot_be_converted(tmp_path: Path, capsys, family: str, scheme: str, reason: str) -> None:
    source = checkpoint(tmp_path / "source", scheme, family)
    assert cli.main(["convert", source, "--out", str(tmp_path / "out")]) == 1
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unknown_scheme_is_answered_with_the_nearest(tmp_path: Path, capsys) -> None:
    source = checkpoint(tmp_path / "pre", "pre")
    assert cli.main(["convert", source, "--to", "lsn", "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'lns'" in capsys.readouterr().err


# -- plans layer by layer, as settings of a run ------------------------------------------------------------------------

THREE_POST = NormalizationConfig(scheme="mixed", layers="3 post, lns").spec().plans(5)


@pytest.mark.parametrize(
    "text",
    [
        "normalization: {scheme: mixed, layers: '3 post, lns'}",
        "normalization: {scheme: mixed, layers: [3 post, lns]}",
        "normalization:\n  scheme: mixed\n  layers:\n    - {norm-post: true, count: 3}\n    - lns\n",
        "normalization:\n  scheme: mixed\n  layers:\n    - {norm_post: true, count: 3}\n    - 2 lns\n",
    ],
)
def test_a_plan_from_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    found = load(file)
    assert [str(plan) for plan in THREE_POST[:3]] == ["N(x + F(x))"] * 3
    assert found.normalization.spec().plans(5) == THREE_POST
    assert parse(["--config", str(file), "--train.steps", "3"], prog="test").normalization == found.normalization
    file.write_text(dump(found))
    assert load(file) == found


def test_a_plan_from_the_command_line() -> None:
    words = ["--normalization.scheme", "mixed", "--normalization.layers", "3 post, lns"]
    found = parse(words, prog="test")
    assert isinstance(found, RunConfig) and found.normalization.spec().plans(5) == THREE_POST


@pytest.mark.parametrize(
    ("layers", "message"), [("1 pst, lns", "did you mean 'post'"), ("4 post, lns", "names 4 layers .* model of 3")]
)
def test_an_impossible_plan_stops_the_run(settings, tmp_path: Path, layers: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(settings(normalization__scheme="mixed", normalization__layers=layers))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_stores_its_plan(run, capsys) -> None:
    folder = run("mixed", layers="1 post, peri+lns")
    assert load(folder / "config.yaml").normalization.layers == "1 post, peri+lns"
    capsys.readouterr()
    assert cli.main(["describe", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "mixed (layers=1 post, peri+lns)" in shown
    assert "layer 1  x <- N(x + F(x))" in shown and "layer 3  x <- x + N_out(F(0.5774·N(x)))" in shown
