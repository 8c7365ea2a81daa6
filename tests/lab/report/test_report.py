from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from lab.cli import main
from lab.diagnostics.record import load
from lab.report import compare, trackers
from lab.report.content import arrow, gather
from lab.report.figures.training import POINTS, thinned
from lab.report.live import server
from lab.report.markdown import markdown, plain
from lab.report.page import in_script, page
from lab.report.read import read, read_all

MakeRun = Callable[..., Path]


def test_a_run_is_read_whole(make_run: MakeRun) -> None:
    run = read(make_run("whole", scheme="mix", seed=3))
    assert run.config["normalization.scheme"] == "mix" and run.seed == 3
    assert run.steps == [10, 20] and len(run.metrics) == 20 and run.notices == []
    assert run.series("eval/loss") == ([10, 20], [7.9 - 0.1, 7.9 - 0.2])


def test_broken_parts_leave_notices_and_the_rest_works(make_run: MakeRun) -> None:
    folder = make_run("broken", checkpoints=3)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 31, "train/lo')
    (folder / "environment.json").write_text("{")
    (folder / "config.yaml").write_text("- a\n- b\n")
    newer = folder / "diagnostics" / "step-000010.json"
    newer.write_text(newer.read_text().replace('"format": 1', '"format": 99'))
    (folder / "diagnostics" / "step-000020.safetensors").write_bytes(b"torn")
    run = read(folder)
    assert run.steps == [30] and len(run.metrics) == 30
    told = "\n".join(run.notices)
    for what in ("line 31 cut short", "environment.json cannot", "config.yaml holds", "newer depthlab", "step-000020"):
        assert what in told
    assert "line 31 cut short" in page(gather([run]))


def test_a_damaged_line_within_costs_only_itself(make_run: MakeRun) -> None:
    folder = make_run("within")
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    lines[4] = b"\xff\xfe"
    lines[9] = b"[1]"
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    run = read(folder)
    assert [entry["step"] for entry in run.metrics] == [n for n in range(1, 21) if n not in (5, 10)]
    assert "2 lines (first: 5)" in run.notices[0]


def test_without_diagnostics_there_is_no_empty_figure(make_run: MakeRun) -> None:
    folder = make_run("training_only")
    for file in (folder / "diagnostics").iterdir():
        file.unlink()
    content = gather([read(folder)])
    assert {panel.kind.section for panel in content.panels} == {"Training"}
    text = page(content)
    assert "What the layers do" not in text and 'id="slider"' not in text and "No diagnostics yet" in text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("train: {steps: 5}\n")
    content = gather([read(tmp_path / "begun")])
    assert content.panels == [] and "no training curves yet" in page(content)


def test_a_model_without_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    record = load(make_run("any") / "diagnostics" / "step-000020.json")
    for key in ("step", "tokens"):
        del record.model[key]
    record.about(name="SmolLM").save(tmp_path / "hub" / "SmolLM.json")
    content = gather([read(tmp_path / "hub" / "SmolLM.json")])
    assert content.title == "SmolLM" and {panel.kind.section for panel in content.panels} == {"Layers"}
    assert "Training loss" not in page(content)


def test_the_interval_is_students() -> None:
    values = [3.1, 2.9, 3.4, 3.05]
    found = compare.interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean - found.half_width == pytest.approx(low) and found.mean + found.half_width == pytest.approx(high)
    assert compare.interval([1.0]).half_width is None


def test_the_difference_is_welchs() -> None:
    a, b = [3.1, 2.9, 3.4, 3.05], [2.0, 2.4, 2.1]
    found = compare.difference(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(expected.low)
    assert found.mean + found.half_width == pytest.approx(expected.high)
    assert found.count == 3 and compare.difference(a, [1.0]).half_width is None


def test_seeds_are_pooled_and_other_differences_are_not(make_run: MakeRun) -> None:
    shifts = {("pre", 0): 0.0, ("pre", 1): 0.3, ("lns", 0): 1.0, ("lns", 1): 1.5}
    folders = [make_run(f"{s}{n}", scheme=s, seed=n, shift=shift) for (s, n), shift in shifts.items()]
    groups = compare.grouped(read_all(list(map(str, folders))))
    assert [(group.label, len(group.runs)) for group in groups] == [("pre (2 seeds)", 2), ("lns (2 seeds)", 2)]
    final = {found.name: found for found in compare.final_figures(groups)}["eval/loss"]
    assert final.values[0] is not None and final.values[0].mean == pytest.approx(7.7 + 0.15)
    assert final.differences[0] is None
    change = final.differences[1]
    expected = stats.ttest_ind([1.0, 1.5], [0.0, 0.3], equal_var=False).confidence_interval(0.95)
    assert change is not None and change.mean + change.half_width == pytest.approx(expected.high)
    differing = compare.config_differences([run for group in groups for run in group.runs])
    assert differing == {"normalization.scheme": ["pre", "pre", "lns", "lns"], "train.seed": [0, 1, 0, 1]}
    content = gather([run for group in groups for run in group.runs])
    panel = next(panel for panel in content.panels if panel.kind.name == "removal")
    traces = panel.drawing.frames[-1].traces
    samples = np.stack([run.figure("removal/increase", 20).values for run in groups[0].runs])
    assert traces[0]["y"] == pytest.approx(samples.mean(0), rel=1e-5)
    half = stats.t.ppf(0.975, 1) * stats.sem(samples, axis=0)
    assert traces[0]["error_y"]["array"] == pytest.approx(half, rel=1e-5)


def test_a_single_runs_heldout_loss_has_the_standard_error_that_it_wrote(make_run: MakeRun) -> None:
    folder = make_run("alone")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        if "eval/loss" in record:
            record["eval/loss_se"] = record["step"] / 1000
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    content = gather([read(folder)])
    panel = next(panel for panel in content.panels if panel.kind.name == "heldout_loss")
    [trace] = panel.drawing.frames[-1].traces
    assert trace["error_y"]["array"] == pytest.approx([1.96 * 0.01, 1.96 * 0.02])
    [final] = [
        found for found in compare.final_figures(compare.grouped([read(folder)])) if found.name == "eval/loss_se"
    ]
    assert final.values[0] is not None and final.values[0].mean == pytest.approx(0.02)


def test_the_same_seed_twice_is_not_pooled(make_run: MakeRun) -> None:
    runs = read_all([str(make_run("a")), str(make_run("b"))])
    assert [len(group.runs) for group in compare.grouped(runs)] == [1, 1]


HOSTILE = "<script>alert(1)<!-- &amp; 'x'"


def test_what_comes_from_outside_is_escaped(make_run: MakeRun) -> None:
    folder = make_run(HOSTILE.replace("/", ""))
    (folder / "config.yaml").write_text(json.dumps({"train": {"seed": "</script><img src=x>"}}))
    text = page(gather([read(folder)]))
    assert "<script>alert(1)" not in text and "<img src=x" not in text
    assert "<h1>&lt;script&gt;alert(1)&lt;!-- &amp;amp; &#39;x&#39;</h1>" in text
    assert "<" not in in_script({"a": "</script><!--"}) and json.loads(in_script({"a": "</b>"})) == {"a": "</b>"}


def test_markdown_is_escaped(make_run: MakeRun) -> None:
    text = markdown(gather([read(make_run("a|b<c>"))]), "figures")
    assert "# a\\|b&lt;c&gt;\n" in text and "![" in text
    assert plain("`x`\n| *y*") == "\\`x\\` \\| \\*y\\*"


def test_json_has_the_numbers_of_the_records(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("numbers")
    assert main(["report", str(folder), "--format", "json", "--out", str(tmp_path / "n.json")]) == 0
    found = json.loads((tmp_path / "n.json").read_text())["runs"][0]
    record = load(folder / "diagnostics" / "step-000010.json")
    checkpoint = found["checkpoints"][0]
    assert checkpoint["step"] == 10
    for diagnostic, figures in record.diagnostics.items():
        for name, figure in figures.items():
            stored = checkpoint["diagnostics"][diagnostic][name]
            np.testing.assert_array_equal(stored["values"], figure.values)
            np.testing.assert_array_equal(stored["standard_error"], figure.error)
            assert stored["unit"] == figure.unit
    assert [entry["train/loss"] for entry in found["metrics"]] == read(folder).series("train/loss")[1]


def test_twelve_layers_and_twenty_checkpoints_stay_under_ten_megabytes(make_run: MakeRun) -> None:
    text = page(gather([read(make_run("large", layers=12, checkpoints=20))]))
    assert len(text.encode()) < 10_000_000
    assert text.count("<figure ") == 22


def test_thinning_keeps_spikes_and_ends() -> None:
    values = np.sin(np.arange(50_000) / 3000)
    values[31_234], values[77] = 99.0, -99.0
    steps, kept = thinned(np.arange(50_000), values)
    assert len(steps) <= POINTS and steps[0] == 0 and steps[-1] == 49_999
    assert {31_234, 77} <= set(steps.tolist()) and kept.max() == 99.0
    assert (values[steps] == kept).all()


def test_arrows() -> None:
    assert arrow(2.0, None) == "" and arrow(2.0, 2.0) == " → unchanged"
    assert arrow(2.5, 2.0) == " ↑ 0.5" and arrow(1.5, 2.0) == " ↓ 0.5"


def test_compare_prints_the_table(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_run("one"), make_run("two[red]", scheme="lns", shift=0.5)
    assert main(["compare", str(first), str(second)]) == 0
    printed = capsys.readouterr().out
    assert "two[red]" in printed and "+0.5" in printed and "normalization.scheme" in printed


def test_compare_breaks_a_wide_table_and_no_name(make_run: MakeRun, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"llama-130m-{scheme}" for scheme in ("pre", "post", "mix", "lns", "peri")]
    assert main(["compare", *(str(make_run(name, scheme=name.split("-")[-1])) for name in names)]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(name) == 2 for name in names) and max(map(len, shown.splitlines())) <= 80
    assert shown.count("held-out loss") == 2 and shown.count("(continued)") == 2


def test_rounding_is_no_difference() -> None:
    assert compare.difference([0.1 + 0.2], [0.3]).mean == 0
    assert compare.difference([0.3 + 1e-9], [0.3]).mean == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["report", "nowhere"], 1, "no run folder and no record"),
        (["report", "RUN", "RUN"], 2, "named twice"),
        (["report", "RUN", "--port", "80"], 2, "only with --live"),
        (["report", "RUN", "--out", "RUN"], 1, "is a folder"),
        (["report", "RUN", "--live", "--out", "x"], 2, "writes nothing"),
        (["compare", "RUN"], 2, "at least two runs"),
        (["report", "RUN/diagnostics/step-000010.safetensors"], 1, "no run folder"),
    ],
)
def test_errors_say_what_to_do(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    folder = str(make_run("good"))
    assert main([word.replace("RUN", folder) for word in words]) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_live_serves_the_newest_and_only_to_this_machine(make_run: MakeRun) -> None:
    folder = make_run("growing")
    with server([str(folder)]) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{running.server_port}"

        def get(path: str) -> str:
            with urllib.request.urlopen(base + path) as answer:
                return answer.read().decode()

        assert running.server_address[0] == "127.0.0.1"
        before, version = get("/"), get("/version")
        assert "data-live" in before and "connect-src &#39;self&#39;" in before and get("/version") == version
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 21, "tokens": 2100, "train/loss": 1.25}) + "\n")
        assert get("/version") != version and "1.25" in get("/content")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(base, headers={"Host": "evil.example"}))
        running.shutdown()


def test_heat_maps_and_curves_for_trackers(make_run: MakeRun) -> None:
    run = read(make_run("tracked", layers=3))
    run = replace(run, records={20: run.records[20]})
    images = trackers.heat_maps(run)
    assert {"report/layer_gradients", "report/angular", "report/attention_entropy"} <= set(images)
    angles = images["report/angular"]
    assert angles.shape == (4 * trackers.CELL, 4 * trackers.CELL, 3) and angles.dtype == np.uint8
    # From h_0 to h_3 is the farthest: the lower right corner, in the last colour; the diagonal is empty.
    brightest = np.where((angles == 255).all(-1), 0, angles.sum(-1, dtype=int))
    assert brightest[-1, -1] == brightest.max() > brightest[-1, trackers.CELL] > 0
    assert angles[-1, 0].tolist() == [255, 255, 255]
    curves = trackers.curves(run.records[20])
    assert curves["diagnostics/removal/increase/layer_3"] == run.records[20].figure("removal/increase").at(layer=3)
    assert all(np.isfinite(value) for value in curves.values())


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_record_is_logged_once_at_the_step_at_which_it_is_there(make_run: MakeRun, tracker: str, monkeypatch) -> None:
    logged: list[tuple[int, str]] = []

    class Tracker:
        name = tracker

        def log_images(self, images, step, **options):
            logged.extend((step, name) for name in images)

        def log(self, values, step=None):
            logged.extend((step, name) for name in values)

    class Accelerator(Tracker):
        trackers = (Tracker(),)

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=lambda pixels: pixels))
    folder = make_run("tracked", layers=3)
    newest = folder / "diagnostics/step-000020.json"
    aside = newest.rename(newest.with_suffix(".later"))
    report = trackers.TrackedReport(Accelerator(), folder)
    report.log(20)
    assert {name for _, name in logged} == {"report/layer_gradients", "report/update_ratio"}
    logged.clear()
    aside.rename(newest)
    report.log(25)
    assert (25, "diagnostics/checkpoint") in logged and (25, "report/angular") in logged
    logged.clear()
    report.log(30)
    assert {name for _, name in logged} == {"report/layer_gradients", "report/update_ratio"}
