"""The files of a record, and the few figures of its summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lab.diagnostics import Figure, Options, Record, load, measure
from lab.diagnostics.show import bar, show
from lab.diagnostics.summary import depth_utilisation, fitted_rate, summarize
from lab.errors import RunError
from tests.lab.diagnostics.models import build, probe


@pytest.fixture(scope="module")
def record() -> Record:
    return measure(build("llama", "pre"), probe(), options=Options(removal_max=2))


def test_what_is_saved_is_read_back(record: Record, tmp_path: Path) -> None:
    record.save(tmp_path / "deep" / "model.json")
    again = load(tmp_path / "deep" / "model")
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"model.json", "model.safetensors"}
    assert again.probe.id == record.probe.id
    assert again.model == record.model
    for diagnostic, figures in (record.diagnostics | {"summary": record.summary}).items():
        for name, figure in figures.items():
            twin = again.summary[name] if diagnostic == "summary" else again.diagnostics[diagnostic][name]
            np.testing.assert_array_equal(figure.values, twin.values)
            assert (figure.axes, figure.unit, figure.reduction) == (twin.axes, twin.unit, twin.reduction)
            if figure.error is None:
                assert twin.error is None
            else:
                np.testing.assert_array_equal(figure.error, twin.error)


def test_other_programs_can_read_it(record: Record, tmp_path: Path) -> None:
    record.save(tmp_path / "model.json")
    content = json.loads((tmp_path / "model.json").read_text())
    arrays = load_file(tmp_path / "model.safetensors")
    assert content["format"] == 1
    assert content["diagnostics"]["removal"]["increase"]["axes"] == {"layer": [1, 2, 3, 4, 5]}
    assert content["diagnostics"]["removal"]["increase"]["unit"] == "nats/token"
    np.testing.assert_array_equal(arrays["angular/distance"], record.figure("angular/distance").values)
    np.testing.assert_array_equal(arrays["probe/input_ids"], record.probe.input_ids)


def test_pandas(record: Record) -> None:
    table = record.to_pandas()
    rows = table[(table.diagnostic == "angular") & (table.figure == "distance")]
    assert len(rows) == 36
    one = rows[(rows["from"] == 1) & (rows["to"] == 3)]
    assert one.value.item() == record.figure("angular/distance").at(**{"from": 1, "to": 3})
    assert set(table.columns) >= {"layer", "stream", "head", "method", "level", "value", "standard_error", "unit"}
    assert set(table.diagnostic) == {*record.diagnostics, "summary"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no such file, so there is no record"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no such file, so there is no record"),
        (lambda folder: (folder / "model.json").write_text("{"), "not a record of depthlab diagnose"),
        (lambda folder: (folder / "model.json").write_text('{"format": 1}'), "not a record of depthlab diagnose"),
        (lambda folder: (folder / "model.json").write_text('{"format": 9}'), "written by a newer depthlab"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is not what was written with it"),
    ],
)
def test_damage_is_found(record: Record, tmp_path: Path, spoil: Any, message: str) -> None:
    record.save(tmp_path / "model.json")
    spoil(tmp_path)
    with pytest.raises(RunError, match=message):
        load(tmp_path / "model.json")


def test_a_write_that_fails_leaves_nothing(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("lab.diagnostics.record.json.dumps", full)
    with pytest.raises(OSError, match="No space"):
        record.save(tmp_path / "model.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("increases", "layers"),
    [
        ([0.3] * 12, 12),  # all alike: L
        ([2.0, 0, 0, 0], 1),  # one bears all
        ([0.2, 0.2, 0.2, 0, 0, 0, 0, -0.1], 3),  # three alike; a layer that is better gone counts as unused
        ([0.0, -1.0], 0),
        ([50.0, 50.0, 0.0], 2),  # nothing can cost more than everything
    ],
)
def test_depth_utilisation_at_its_limits(increases: list[float], layers: float) -> None:
    assert depth_utilisation(np.array(increases)) == pytest.approx(layers)


def test_depth_utilisation_is_what_it_is_defined_as() -> None:
    increases = np.array([3.0, 0.4, 0.02, 0.1])
    costs = [1 - np.exp(-value) for value in increases]
    shares = [cost / sum(costs) for cost in costs]
    assert depth_utilisation(increases) == pytest.approx(np.prod([share**-share for share in shares]))
    assert depth_utilisation(increases[::-1]) == pytest.approx(depth_utilisation(increases))
    assert depth_utilisation(np.append(increases, [0, 0])) == pytest.approx(depth_utilisation(increases))


def test_fitted_rate_of_an_exponential() -> None:
    slope, fit = fitted_rate(2.5 * np.exp(0.3 * np.arange(9)))
    assert (slope, fit) == (pytest.approx(0.3), pytest.approx(1))
    assert np.isnan(fitted_rate(np.array([1.0]))).all()


def test_summary_follows_its_definitions(record: Record) -> None:
    median = record.figure("variance/stream_median").values
    assert record.summary["variance_growth"].at() == pytest.approx(median[5] / median[1])
    assert record.summary["variance_rate"].at() == pytest.approx(np.polyfit(range(5), np.log(median[1:]), 1)[0])
    costs = record.figure("removal/increase").values
    assert record.summary["idle_layers"].at() == np.mean(costs < 0.01)
    assert record.summary["layers_used"].at() == pytest.approx(depth_utilisation(costs))
    distance = record.figure("angular/distance").values
    deep = np.mean([distance[2, 3], distance[3, 4], distance[4, 5]])
    assert record.summary["deep_angle"].at() == pytest.approx(deep)
    norms = record.figure("gradients/layer").values
    assert record.summary["gradient_ratio"].at() == pytest.approx(norms[0] / norms[4])
    assert summarize({}) == {}


def test_tables(record: Record) -> None:
    text = show(record)
    lines = text.splitlines()
    assert "llama, 5 layers" in lines[0]
    assert any(line.startswith("layers_used ") for line in lines)
    assert [line.split()[0] for line in lines[-5:]] == ["1", "2", "3", "4", "5"]
    cost = f"{record.figure('removal/increase').at(layer=5):.4g}"
    assert cost in lines[-1]
    details = show(record, ["angular", "sparsity", "attention", "removal"])
    for head in ("angular/distance [1/pi rad]", "sparsity/increase", "attention/entropy [nats]", "removal/block_kl"):
        assert head in details


@pytest.mark.parametrize(
    ("share", "text"), [(1, "████"), (0.5, "██"), (0.03125, "▏"), (0, ""), (-1, ""), (float("nan"), ""), (7, "████")]
)
def test_bar(share: float, text: str) -> None:
    assert bar(share, width=4) == text


def test_figure_at_and_errors() -> None:
    figure = Figure(np.array([[1.0, 2.0]]), {"layer": [3], "head": [1, 2]}, "1", "test")
    assert figure.at(layer=3, head=2) == 2
    with pytest.raises(KeyError, match="head 9: not in"):
        figure.at(layer=3, head=9)
    with pytest.raises(KeyError, match="one coordinate for each of layer, head"):
        figure.at(layer=3)
