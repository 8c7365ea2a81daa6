"""Every registered monitor: what it declares is what it gives, whoever shares the model, and the report shows it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.config.sections import MonitorsConfig
from lab.errors import ConfigError
from lab.monitors import Monitor, Monitors, moments, names
from lab.monitors.quantity import LARGEST, MEAN, NORM, RMS, SUM, TOKEN_VARIANCE, Quantity
from lab.parallel.places import Groups
from lab.parallel.sharding.replicated import Replicated
from lab.report.content import gather
from lab.report.page import page
from lab.report.read import read
from lab.runfolder import metrics
from lab.training.run import pretrain
from tests.normalization import tiny

DEPTH = tiny.LAYERS


class Repeated(Replicated):
    """One process, to whose monitors each element of a weight and a gradient is there `times` times."""

    times = 1

    def elements(self, parameter: Any) -> int:
        return self.times * super().elements(parameter)

    def gradient(self, parameter: Any) -> Tensor:
        return super().gradient(parameter).flatten().repeat(self.times)

    def weight(self, parameter: Any) -> Tensor:
        return super().weight(parameter).flatten().repeat(self.times)


@dataclasses.dataclass
class Seen:
    """One step, measured by monitors, and all that there was to measure."""

    figures: dict[str, float]
    tensors: dict[str, dict[str, Tensor]]
    """What -> place -> its elements; layer outputs as (tokens, features)."""


def step(*, times: int = 1, only: str | None = None, options: tuple[str, ...] = ()) -> Seen:
    """An SGD step of a tiny LLaMA on two micro-batches, whose elements or tokens are there `times` times."""
    torch.manual_seed(0)
    model = tiny.patched("llama", "peri").train()
    # Two micro-batches of unequal size, so that their average is not that of the tokens.
    batches = [tiny.tokens(2, 9), tiny.tokens(1, 9).flip(1)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sharding = Repeated(
        SimpleNamespace(scaler=None),
        model,
        SimpleNamespace(  # type: ignore[arg-type]
            optimizer=optimizer, param_groups=optimizer.param_groups
        ),
    )
    sharding.times = times
    groups = Groups(model, sharding)
    off = tuple(name for name in names() if only is not None and name != only)
    watch = Monitors(MonitorsConfig(every=3, off=off, options=options), model, groups).watch(3)
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.setdefault(name, []).append(
            (output[0] if isinstance(output, tuple) else output).detach().flatten(0, 1)
        )

    handles = [
        layer.register_forward_hook(keep(f"layer_{number:02}")) for number, layer in enumerate(tiny.layers(model), 1)
    ]
    with watch.forward():
        for ids in batches:
            batch = {"input_ids": ids.repeat(times, 1)}
            watch.before_forward(batch)
            logits = model(**batch, use_cache=False).logits
            watch.after_forward(logits, batch)
            logits.logsumexp(-1).sum().div(times).backward()
    for handle in handles:
        handle.remove()
    watch.after_backward()

    def by_place(of: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            found.setdefault(place(name), []).append(of(parameter).detach().clone().flatten())
        return {name: torch.cat(tensors).double() for name, tensors in found.items()}

    weights, gradients = by_place(lambda p: p), by_place(lambda p: p.grad)
    watch.before_update(groups.gradient_norms())
    optimizer.step()
    figures = watch.after_update()
    after = by_place(lambda p: p)
    assert not any(module._forward_hooks for module in model.modules()), "the hooks are gone"
    return Seen(
        figures,
        {
            "weights": weights,
            "gradients": gradients,
            "updates": {name: after[name] - weights[name] for name in after},
            "layer outputs": {name: torch.cat(tensors).double() for name, tensors in outputs.items()},
        },
    )


def place(parameter: str) -> str:
    """Which place a parameter of LLaMA belongs to, by its name."""
    parts = parameter.split(".")
    if "layers" in parts:
        return f"layer_{int(parts[parts.index('layers') + 1]) + 1:02}"
    return {"embed_tokens": "embedding", "norm": "final_norm", "lm_head": "head"}[parts[-2]]


FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    NORM.name: lambda x: x.square().sum().sqrt(),
    RMS.name: lambda x: x.square().mean().sqrt(),
    MEAN.name: lambda x: x.mean(),
    SUM.name: lambda x: x.sum(),
    LARGEST.name: lambda x: x.abs().max(),
    TOKEN_VARIANCE.name: lambda x: (x - x.mean(-1, keepdim=True)).square().mean(-1).mean(),
}


def check(name: str) -> None:
    """What a monitor gives is finite, is what it declares by an independent formula, and scales as that does."""
    seen, doubled = step(only=name), step(times=2, only=name)
    assert seen.figures.keys() == doubled.figures.keys()
    for quantity in moments.REGISTRY[name].quantities:
        assert quantity.unit and quantity.title and quantity.shows and quantity.definition and quantity.source
        own = {key: value for key, value in seen.figures.items() if key.partition("/")[0] == quantity.name}
        layers = [f"layer_{number:02}" for number in range(1, DEPTH + 1)]
        places = {"places": ["embedding", *layers, "final_norm", "head"], "layers": layers, "model": [""]}
        assert [key.partition("/")[2] for key in own] == places[quantity.over]
        ratio = 1.0 if quantity.relative_to else quantity.reduction.doubled
        for key, value in own.items():
            assert value == value and abs(value) != float("inf"), key
            assert doubled.figures[key] == pytest.approx(ratio * value, rel=1e-4), (
                f"{key} is no {quantity.reduction.name}: each element twice should make it {ratio:.3g} x"
            )
            if (expected := computed(quantity, key.partition("/")[2], seen)) is not None:
                assert value == pytest.approx(expected, rel=1e-4), f"{key} is not the {quantity.reduction.name}"


def computed(quantity: Quantity, at: str, seen: Seen) -> float | None:
    """The declared formula on the tensors themselves; None for what is not known here."""
    formula = FORMULAS.get(quantity.reduction.name)
    if formula is None or not {quantity.of, quantity.relative_to or quantity.of} <= seen.tensors.keys():
        return None
    value = formula(seen.tensors[quantity.of][at])
    return float(value / formula(seen.tensors[quantity.relative_to][at]) if quantity.relative_to else value)


@pytest.mark.parametrize("name", names())
def test_a_monitor_gives_what_it_declares(name: str) -> None:
    check(name)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Monitor]]:
    """Monitors that are registered meanwhile are gone afterwards."""
    found = dict(moments.REGISTRY)
    monkeypatch.setattr(moments, "REGISTRY", found)
    monkeypatch.setattr("lab.monitors.watch.REGISTRY", found)
    return found


def of_weights(name: str, reduction: Any, measure: Callable[[Groups], Tensor]) -> None:
    quantity = Quantity(
        name, of="weights", reduction=reduction, unit="1", title="W", shows="W.", definition="W.", source="this test"
    )

    @moments.monitor(name, quantity)
    class OfWeights(Monitor):
        def before_update(self, gradient_norms: Tensor) -> None:
            self.values = measure(self.groups)

        def after_update(self) -> dict[str, Tensor]:
            return {name: self.values}


def norms(groups: Groups) -> Tensor:
    return groups.weight_norms(groups.weights())


@pytest.mark.parametrize(
    ("declared", "measure", "is_right"),
    [
        (NORM, norms, True),
        (RMS, lambda groups: groups.root_mean_squares(norms(groups)), True),
        (RMS, norms, False),
        (NORM, lambda groups: groups.root_mean_squares(norms(groups)), False),
        (MEAN, lambda groups: groups.root_mean_squares(norms(groups)), False),
        (RMS, lambda groups: 2 * groups.root_mean_squares(norms(groups)), False),
    ],
)
def test_a_norm_that_is_sold_as_a_root_mean_square_is_noticed(registry, declared, measure, is_right: bool) -> None:
    of_weights("weight_size", declared, measure)
    if is_right:
        check("weight_size")
    else:
        with pytest.raises(AssertionError, match=f"is (no|not the) {declared.name}"):
            check("weight_size")


def test_a_new_monitor_is_one_class_that_runs_record_and_reports_show(registry, settings) -> None:
    """With a quantity of each kind, options, and a state that a resumed run goes on with."""
    kinds = {"places": "spread_by_place", "layers": "spread_by_layer", "model": "measured"}

    @dataclasses.dataclass(frozen=True)
    class Options:
        power: float = 1.0

    @moments.monitor(
        "spread",
        *(
            Quantity(
                name,
                of="a count",
                reduction=MEAN,
                unit="furlongs",
                title=f"Title of {name}",
                shows="What to look for.",
                definition="How it is defined.",
                source="this test",
                over=over,
                logarithmic=False,
            )
            for over, name in kinds.items()
        ),
    )
    class Spread(Monitor):
        seen = 0

        def after_update(self) -> dict[str, Tensor]:
            self.seen += 1
            values = torch.tensor(float(self.seen)) ** self.options.power
            places, depth = len(self.groups.names), self.groups.depth
            return dict(zip(kinds.values(), (values.expand(places), values.expand(depth), values), strict=True))

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.seen = state["seen"]

    Spread.Options = Options
    run = settings(monitors__options="spread.power=2", monitors__off="update_ratio", checkpoint__every=3)
    assert pretrain(run)
    record = [record for record in metrics.read(Path(run.run_dir)) if "measured" in record]
    assert [entry["measured"] for entry in record] == [1, 4, 9, 16, 25, 36]
    assert not any("update_ratio" in key for entry in record for key in entry)
    content = gather([read(run.run_dir)])
    panels = {panel.kind.title: panel for panel in content.panels}
    for name in kinds.values():
        assert panels[f"Title of {name}"].kind.unit == "furlongs"
        assert panels[f"Title of {name}"].drawing.frames[0].traces
    assert "Title of measured" in page(content)

    again = Path(run.run_dir) / "checkpoints/step-000003/trainer.json"
    assert json.loads(again.read_text())["monitors"] == {"spread": {"seen": 3}}
    (Path(run.run_dir) / "checkpoints/step-000006/manifest.json").unlink()
    assert pretrain(settings(resume="latest", monitors__options="spread.power=2", monitors__off="update_ratio"))
    record = [record for record in metrics.read(Path(run.run_dir)) if "measured" in record]
    assert [entry["measured"] for entry in record] == [1, 4, 9, 16, 25, 36]


def test_every_monitor_is_drawn_in_the_report(settings) -> None:
    run = settings(monitors__every=2)
    assert pretrain(run)
    drawn = {panel.kind.name: panel.kind for panel in gather([read(run.run_dir)]).panels}
    for quantity in moments.quantities():
        kind = drawn[quantity.panel or quantity.name]
        assert quantity.unit in kind.unit or "ratio" in kind.unit
        assert quantity.definition in kind.definition and quantity.source in kind.source


def test_options_change_what_they_say() -> None:
    every, fourth = step(only="activations"), step(only="activations", options=("activations.stride=4",))
    looked_at = step().tensors["layer outputs"]["layer_02"].unflatten(0, (3, 9))[:, ::4].flatten(0, 1)
    expected = float(FORMULAS[TOKEN_VARIANCE.name](looked_at))
    assert fourth.figures["activation_variance/layer_02"] == pytest.approx(expected, rel=1e-4)
    assert every.figures["activation_variance/layer_02"] != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"off": ("update_ration",)}, "--monitors.off update_ration: no such monitor (did you mean update_ratio?)"),
        ({"options": ("activations.strid=2",)}, "no such option of activations (did you mean stride?)"),
        ({"options": ("gradient_norm.x=2",)}, "no such option of gradient_norm; there is none"),
        ({"options": ("activation.stride=2",)}, "no such monitor (did you mean activations?)"),
        ({"options": ("stride",)}, "--monitors.options stride: give MONITOR.OPTION=VALUE"),
        ({"options": ("activations.stride=often",)}, "--monitors.options activations.stride=often: Input should be"),
        ({"options": ("activations.stride=0",)}, "must be at least 1"),
        ({"options": ("activations.stride=[",)}, "the value is not YAML"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_else(settings, config, told) -> None:
    run = dataclasses.replace(settings(data__source="nowhere"), monitors=MonitorsConfig(**config))
    with pytest.raises(ConfigError) as error:
        pretrain(run)
    assert told in str(error.value)


def test_monitors_that_are_off_leave_no_trace(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook is made, and no monitor is asked, on a step that is not measured or with every monitor off."""
    hooks: list[Any] = []
    register = torch.nn.Module.register_forward_hook
    monkeypatch.setattr(
        torch.nn.Module, "register_forward_hook", lambda self, hook: hooks.append(self) or register(self, hook)
    )
    steps = {"train__steps": 3, "eval__every": 0, "checkpoint__every": 0}
    evaluated = 3  # the last evaluation's, one a layer
    assert pretrain(settings("off", **steps, monitors__every=0))
    assert len(hooks) == evaluated
    hooks.clear()
    assert pretrain(settings("first", **steps, monitors__every=50))
    assert len(hooks) == evaluated + 3
    hooks.clear()
    assert pretrain(settings("named", **steps, monitors__every=1, monitors__off="activations"))
    assert len(hooks) == evaluated


def test_activations_are_those_of_the_forward_pass_with_recomputed_layers_too(settings) -> None:
    def figures(name: str, **overrides: Any) -> Iterator[dict[str, float]]:
        run = settings(name, train__steps=2, eval__every=0, **overrides)
        assert pretrain(run)
        for record in metrics.read(Path(run.run_dir)):
            if "train/loss" in record:
                yield {key: value for key, value in record.items() if "second" not in key}

    plain = list(figures("plain"))
    for ours, again in zip(plain, figures("again", train__activation_checkpointing=True), strict=True):
        assert ours == pytest.approx(again, rel=1e-5)
    assert "activation_largest/layer_03" in plain[0]
