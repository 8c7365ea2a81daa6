"""What the loss becomes when weights are pruned: of one layer at a time, and of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lab.diagnostics.base import Experiment
from lab.diagnostics.engine.block_sums import BlockSums
from lab.diagnostics.engine.decoding import losses
from lab.diagnostics.engine.places import Matrix, matrices
from lab.diagnostics.engine.probe import Batch
from lab.diagnostics.engine.streams import recorder
from lab.diagnostics.engine.weight_pruning import pruned
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis


@diagnostic("sparsity", source="Wanda: arXiv:2306.11695; magnitude pruning: Han et al. 2015, arXiv:1506.02626")
class Sparsity(Experiment):
    """Loss increase when the lowest-scoring weights of the linear maps are zero.

    Magnitude scores |W|, compared over a matrix; Wanda scores |W_ij| |X_j|_2 with X the map's inputs on the probe,
    compared within a row. Pruned in place and put back bit for bit.
    """

    def prepare(self) -> None:
        session, options = self.session, self.session.options
        self._methods = ["magnitude"]
        self._norms: dict[tuple[int, str], Tensor] = {}
        found = [(layer, matrix) for layer in range(1, session.depth + 1) for matrix in matrices(session, layer)]
        # What reaches the weights of an expert is inside its module, where no hook sees it.
        if all(matrix.view.ndim == 2 or matrix.role in ("query", "key", "value") for _, matrix in found):
            self._methods.append("wanda")
            self._norms = {
                (layer, matrix.name): torch.zeros(matrix.view.shape[-1], dtype=torch.float64, device=session.device)
                for layer, matrix in found
            }
        self._blocks = min(options.sparsity_blocks, len(session.probe))
        self._full = self.block_sums()
        self._one = self.block_sums(session.depth, len(self._methods), len(options.sparsity_levels))
        self._all = self.block_sums(len(self._methods), len(options.sparsity_levels_all))

    @torch.no_grad()
    def run(self) -> None:
        if self._norms:
            self._measure_inputs()
        with recorder(self.session) as record:
            for batch in self.session.batches(self._blocks):
                self._single_layers(batch, record)
        self._all_layers()

    def _measure_inputs(self) -> None:
        """|X_j|_2 of every map's inputs, over all tokens of the whole probe."""
        real: list[Tensor] = []

        def add(key: tuple[int, str]) -> Any:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                inputs = args[0].reshape(*real[0].shape, -1)[real[0]]
                self._norms[key] += inputs.double().square().sum(0)

            return hook

        handles = []
        try:
            for layer in range(1, self.session.depth + 1):
                modules = {matrix.name: matrix.module for matrix in matrices(self.session, layer)}
                for name, module in modules.items():
                    handles.append(module.register_forward_pre_hook(add((layer, name))))
            for batch in self.session.batches():
                real[:] = [batch.real]
                self.session.model(**batch.inputs, use_cache=False, logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
        for squares in self._norms.values():
            self.session.processes.add_up(squares)
            squares.sqrt_()

    def _single_layers(self, batch: Batch, record: Any) -> None:
        session, options = self.session, self.session.options
        streams = record(batch)
        count = batch.predicted.sum(1)
        full = losses(session, streams.hidden[-1], batch.targets, batch.predicted)
        for sums in (self._full, self._one, self._all):
            sums.count(batch.rows, count)
        self._full.add(batch.rows, (), full)
        for layer in range(1, session.depth + 1):
            for place, method in enumerate(self._methods):
                for number, level in enumerate(options.sparsity_levels):
                    with self._pruned([layer], method, level):
                        end = streams.run(streams.hidden[layer - 1], after=layer - 1)
                    loss = losses(session, end, batch.targets, batch.predicted)
                    self._one.add(batch.rows, (layer - 1, place, number), loss - full)

    def _all_layers(self) -> None:
        session, options = self.session, self.session.options
        everything = range(1, session.depth + 1)
        for place, method in enumerate(self._methods):
            for number, level in enumerate(options.sparsity_levels_all):
                with self._pruned(everything, method, level), recorder(session) as record:
                    for batch in session.batches(self._blocks):
                        end = record(batch).hidden[-1]
                        loss = losses(session, end, batch.targets, batch.predicted)
                        full = self._full.sums[batch.rows]
                        self._all.add(batch.rows, (place, number), loss - full)

    @contextmanager
    def _pruned(self, layers: Sequence[int], method: str, level: str) -> Iterator[None]:
        kept: list[tuple[Tensor, Tensor]] = []
        try:
            for layer in layers:
                for matrix in matrices(self.session, layer):
                    kept.append((matrix.view, matrix.view.clone()))
                    matrix.view.masked_fill_(self._mask(layer, matrix, method, level), 0)
            yield
        finally:
            for view, before in kept:
                view.copy_(before)

    def _mask(self, layer: int, matrix: Matrix, method: str, level: str) -> Tensor:
        scores = matrix.view.abs().float()
        if method == "wanda":
            scores = scores * self._norms[layer, matrix.name].float()
        if matrix.role in ("query", "key", "value") and scores.ndim > 2:
            # (heads, out, in) of one map: compared together, as where each map has a weight of its own.
            return pruned(scores.flatten(0, -2), level, by_row=method == "wanda").view_as(scores)
        return pruned(scores, level, by_row=method == "wanda")

    def figures(self) -> dict[str, Figure]:
        options, depth = self.session.options, self.session.depth
        what = f"loss of the pruned model minus that of the whole one, on {self._blocks} blocks; mean over tokens"
        methods = {"method": self._methods}

        def figure(sums: BlockSums, axes: dict[str, Any]) -> Figure:
            return Figure(sums.mean(), axes, "nats/token", what, sums.error())

        found = {"all_increase": figure(self._all, methods | {"level": options.sparsity_levels_all})}
        found["increase"] = figure(self._one, layer_axis(depth) | methods | {"level": options.sparsity_levels})
        found["full_loss"] = Figure(
            self._full.mean(), {}, "nats/token", f"loss of the whole model on {self._blocks} blocks", self._full.error()
        )
        return found
