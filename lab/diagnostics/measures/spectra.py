"""Singular values of the weights; needs no data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab.diagnostics.base import Experiment
from lab.diagnostics.engine.places import matrices
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure


@diagnostic("spectra", source="stable rank: Rudelson and Vershynin 2007, arXiv:math/0503442")
class Spectra(Experiment):
    """Largest singular value and stable rank |W|_F^2 / sigma_1^2 of every weight matrix of every layer."""

    def prepare(self) -> None:
        depth = self.session.depth
        self._names: list[str] = []
        for layer in range(1, depth + 1):
            for matrix in matrices(self.session, layer):
                if (name := self._name(matrix.name, matrix.role)) not in self._names:
                    self._names.append(name)
        self._largest = self.total(depth, len(self._names))
        self._stable = self.total(depth, len(self._names))

    def _name(self, weight: str, role: str) -> str:
        return f"{weight.removesuffix('.weight')}:{role}"

    def run(self) -> None:
        processes = self.session.processes
        mine = range(self.session.depth)[processes.rank :: processes.world]
        for index in mine:
            values: dict[str, list[tuple[float, float]]] = {}
            for matrix in matrices(self.session, index + 1):
                heads_together = matrix.view.flatten(0, -2)[None] if "experts" not in matrix.name else matrix.view
                for each in heads_together:
                    values.setdefault(self._name(matrix.name, matrix.role), []).append(largest_and_stable_rank(each))
            for name, found in values.items():
                # Of experts, and of two maps with one role in one weight: the largest value, the mean stable rank.
                place = self._names.index(name)
                self._largest[index, place] = max(largest for largest, _ in found)
                self._stable[index, place] = float(np.mean([stable for _, stable in found]))

    def figures(self) -> dict[str, Figure]:
        axes = {"layer": range(1, self.session.depth + 1), "weight": self._names}
        missing = (self._largest == 0).cpu().numpy()
        return {
            "largest": Figure(
                np.where(missing, np.nan, self._largest.cpu().numpy()),
                axes,
                "1",
                "largest singular value of the weight matrix (of experts, the largest); NaN where a layer has none",
            ),
            "stable_rank": Figure(
                np.where(missing, np.nan, self._stable.cpu().numpy()),
                axes,
                "directions",
                "|W|_F^2 / sigma_1^2 of the weight matrix (of experts, the mean); NaN where a layer has none",
            ),
        }


def largest_and_stable_rank(matrix: Tensor) -> tuple[float, float]:
    """sigma_1 and |W|_F^2 / sigma_1^2 of a matrix (m, n), exactly, in float64."""
    matrix = matrix.double()
    gram = matrix @ matrix.mT if matrix.shape[0] < matrix.shape[1] else matrix.mT @ matrix
    square = float(torch.linalg.eigvalsh(gram)[-1])
    frobenius = float(matrix.square().sum())
    return (square**0.5, frobenius / square) if square > 0 else (0.0, 0.0)
