"""The one instrument: hooks that record the residual stream of a forward pass, and layers run again from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lab.diagnostics.engine.probe import Batch
from lab.diagnostics.engine.session import Session

OnAttention = Callable[[int, Tensor | None, "Streams"], None]


@dataclass
class Streams:
    """What one batch left behind in a forward pass; references, no copies."""

    session: Session
    batch: Batch
    hidden: list[Tensor] = field(default_factory=list)
    """h_0 (embeddings) .. h_L, each (B, T, D), before the final norm."""
    attention: list[Tensor] = field(default_factory=list)
    """Output of each layer's attention (B, T, D), before any norm on it."""
    mlp: list[Tensor] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """How the model called each layer: masks and position embeddings are the layer's own."""

    def layer(self, number: int, stream: Tensor) -> Tensor:
        """Run layer 1..L on a stream (B, T, D), called as the model called it."""
        args, kwargs = self.calls[number - 1]
        return first(self.session.layers[number - 1](stream, *args, **kwargs))

    def run(self, stream: Tensor, after: int) -> Tensor:
        """h_L from a stream that stands for h_after: runs the layers after + 1 .. L."""
        for number in range(after + 1, self.session.depth + 1):
            stream = self.layer(number, stream)
        return stream


def first(output: Any) -> Any:
    """The tensor of a module that returns it alone, or with others behind it."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def recorder(
    session: Session, *, sublayers: bool = False, on_attention: Sequence[OnAttention] = ()
) -> Iterator[Callable[[Batch], Streams]]:
    """Inside, call it with a batch to get its streams. The hooks are gone afterwards, whatever happens.

    The head is not run: whoever needs logits decodes the streams.

    Args:
        session: model and probe.
        sublayers: record the outputs of attention and MLP too.
        on_attention: told of each layer's attention weights as they come.
    """
    family, layers = session.family, session.layers
    recording: list[Streams] = []  # the one being filled; empty while layers are run again

    def before(number: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for now in recording:
                stream, *rest = args or (kwargs["hidden_states"],)
                if number == 1:
                    now.hidden.append(stream)
                now.calls.append((tuple(rest), {key: value for key, value in kwargs.items() if key != "hidden_states"}))

        return hook

    def after_layer(module: Any, args: Any, output: Any) -> None:
        for now in recording:
            now.hidden.append(first(output))

    def after_attention(number: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            for now in recording:
                if sublayers:
                    now.attention.append(first(output))
                weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
                for listener in on_attention:
                    listener(number, weights, now)

        return hook

    def after_mlp(module: Any, args: Any, output: Any) -> None:
        for now in recording:
            now.mlp.append(first(output))

    def record(batch: Batch) -> Streams:
        streams = Streams(session, batch)
        recording.append(streams)
        try:
            with torch.no_grad():
                session.model(**batch.inputs, use_cache=False, logits_to_keep=1)
        finally:
            recording.clear()
        return streams

    handles = []
    try:
        for number, layer in enumerate(layers, start=1):
            handles.append(layer.register_forward_pre_hook(before(number), with_kwargs=True))
            handles.append(layer.register_forward_hook(after_layer))
            if sublayers or on_attention:
                attention = layer.get_submodule(family.attention)
                handles.append(attention.register_forward_hook(after_attention(number)))
            if sublayers:
                handles.append(layer.get_submodule(family.mlp).register_forward_hook(after_mlp))
        yield record
    finally:
        for handle in handles:
            handle.remove()
