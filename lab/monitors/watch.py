"""The monitors of a run: which are on, with which options, and their moments on the steps that are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

import normalization
from lab.config.sections import MonitorsConfig
from lab.errors import ConfigError
from lab.monitors.moments import REGISTRY, Monitor, names
from lab.monitors.quantity import Quantity
from lab.parallel.places import Groups, layer_names


class Watch:
    """The moments of one step, for the monitors that measure it; with none it does nothing."""

    def __init__(self, monitors: Sequence[Monitor], layers: Sequence[nn.Module], groups: Groups) -> None:
        self._monitors, self._layers, self._groups = monitors, layers, groups
        self._in_forward = False
        self.measures = bool(monitors)
        """Whether any monitor measures this step."""

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around a step's forward and backward passes: the layers have hooks in here, if any are needed."""
        watching = [monitor for monitor in self._monitors if looks_inside(type(monitor))]
        handles = []

        def hook(number: int) -> Any:
            def tell(module: nn.Module, args: Any, output: Any) -> None:
                if self._in_forward:  # and not where activation checkpointing computes the layer again
                    with torch.no_grad():
                        for monitor in watching:
                            monitor.on_layer(number, (output[0] if isinstance(output, tuple) else output).detach())

            return tell

        try:
            for number, layer in enumerate(self._layers if watching else [], start=1):
                handles.append(layer.register_forward_hook(hook(number)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before_forward(self, batch: dict[str, Tensor]) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.before_forward(batch)
        self._in_forward = True

    def after_forward(self, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """See `Monitor`."""
        self._in_forward = False
        with torch.no_grad():
            for monitor in self._monitors:
                monitor.after_forward(logits.detach(), batch)

    def after_backward(self) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.after_backward()

    def before_update(self, gradient_norms: Tensor) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.before_update(gradient_norms)

    def after_update(self) -> dict[str, float]:
        """The figures of the step by name, such as `grad_norm/layer_03`."""
        figures: dict[str, float] = {}
        for monitor in self._monitors:
            values = monitor.after_update()
            declared = {quantity.name: quantity for quantity in monitor.quantities}
            assert values.keys() == declared.keys(), f"{monitor.name} declares {list(declared)}, gives {list(values)}"
            for name, value in values.items():
                figures |= self._named(declared[name], value)
        return figures

    def _named(self, quantity: Quantity, values: Tensor) -> dict[str, float]:
        if quantity.over == "model":
            return {quantity.name: float(values)}
        places = self._groups.names if quantity.over == "places" else layer_names(len(self._layers))
        return {f"{quantity.name}/{place}": value for place, value in zip(places, values.tolist(), strict=True)}


class Monitors:
    """The monitors of a run.

    Args:
        config: `--monitors.*`.
        model: the bare causal LM.
        groups: its parameters by place.
        compiled: compiled code does not see hooks, so monitors that look inside the forward pass are left out.

    Raises:
        ConfigError: as `check`.
    """

    def __init__(self, config: MonitorsConfig, model: nn.Module, groups: Groups, *, compiled: bool = False) -> None:
        made = {name: REGISTRY[name](groups, options) for name, options in check(config).items()}
        self.left_out = [name for name, monitor in made.items() if compiled and looks_inside(type(monitor))]
        """Names of monitors that are on, and cannot measure."""
        self._every = config.every
        self._monitors = {name: monitor for name, monitor in made.items() if name not in self.left_out}
        layers = list(normalization.decoder_layers(model))
        self._watch, self._nothing = Watch(list(self._monitors.values()), layers, groups), Watch([], layers, groups)

    def watch(self, step: int) -> Watch:
        """What watches a step: all monitors at the first and at every `--monitors.every`th, else none."""
        measured = self._every > 0 and (step == 1 or step % self._every == 0)
        return self._watch if measured else self._nothing

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have any."""
        return {name: state for name, monitor in self._monitors.items() if (state := monitor.state_dict())}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Go on from these; a monitor that was not there begins anew."""
        for name, monitor in self._monitors.items():
            if name in states:
                monitor.load_state_dict(states[name])


def looks_inside(monitor: type[Monitor]) -> bool:
    """Whether a monitor needs hooks on the layers."""
    return monitor.on_layer is not Monitor.on_layer


def check(config: MonitorsConfig) -> dict[str, Any]:
    """The monitors that are on, with their options.

    Raises:
        ConfigError: an unknown monitor or option, or a value of another type; names the nearest and the choices.
    """
    for name in config.off:
        _known(f"--monitors.off {name}", "monitor", name, names())
    given: dict[str, dict[str, Any]] = {name: {} for name in names()}
    for text in config.options:
        path, equals, value = text.partition("=")
        name, dot, option = path.partition(".")
        flag = f"--monitors.options {text}"
        if not equals or not dot:
            raise ConfigError(f"{flag}: give MONITOR.OPTION=VALUE")
        _known(flag, "monitor", name, names())
        _known(flag, f"option of {name}", option, tuple(field.name for field in fields(REGISTRY[name].Options)))
        try:
            given[name][option] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag}: the value is not YAML") from error
    return {name: _made(name, values) for name, values in given.items() if name not in config.off}


def _made(name: str, values: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(REGISTRY[name].Options).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"{name}.{'.'.join(map(str, first['loc']))}={first['input']}" if first["loc"] else name
        raise ConfigError(f"--monitors.options {option}: {first['msg']}") from error


def _known(flag: str, kind: str, name: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        near = get_close_matches(name, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        has = f"choose from {', '.join(choices)}" if choices else "there is none"
        raise ConfigError(f"{flag}: no such {kind}{hint}; {has}")
