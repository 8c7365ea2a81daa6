"""Whole runs of simulated judges, and the figures that were had elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.running.config import CacheConfig, JudgeConfig, NetworkConfig
from evaluators.running.judged import read_run
from evaluators.running.run import Run
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.values import Review

FILE = Path(__file__).parents[3] / "shared" / "data" / "simulation_expectations.json"

KNOWN: dict[str, Any] = {
    "A_condorcet": {"0.6": {"1": 0.6, "9": 0.733432, "31": 0.871618}, "0.8": {"3": 0.896, "9": 0.980419}},
    "B_beta_binomial": {
        "mean=0.7,rho=0.1": {"exact": {"1": 0.7, "9": 0.8274}, "ceiling": 0.899},
        "mean=0.8,rho=0.67": {"exact": {"3": 0.8063, "9": 0.8095}, "ceiling": 0.811},
    },
    "C_gauss_width": {
        "n": {
            "1": {"both_orders_exact": 0.6963, "one_order_mc(b=.8)": 0.6612, "kappa_exact(balanced)=2acc-1": 0.3926},
            "8": {"both_orders_exact": 0.7808, "one_order_mc(b=.8)": 0.7126, "kappa_exact(balanced)=2acc-1": 0.5616},
        },
        "ceiling_n->inf": 0.8056,
    },
    "C_position": {
        "0.0": {"agree_mc": 0.7514, "agree_exact_if_b=0": 0.7529, "first_pref_exact": 0.5},
        "0.8": {"agree_mc": 0.6261, "agree_exact_if_b=0": 0.7529, "first_pref_exact": 0.6658},
    },
    "D_depth": {
        "L1 n=8": {"acc": 0.7811, "spread_var_last_layer": 1.315, "err_corr_first_last_neuron_by_layer": [0.244]},
        "L2 n=8 win2 lam.5": {
            "acc": 0.7803,
            "spread_var_last_layer": 0.854,
            "err_corr_first_last_neuron_by_layer": [0.248, 0.279],
        },
        "L3 n=8 full herd1": {
            "acc": 0.7334,
            "spread_var_last_layer": 0.562,
            "err_corr_first_last_neuron_by_layer": [0.244, 0.683, 0.809],
        },
    },
    "E_tie_rate(integer diffs mean .5 sd 1.5)": {"1": {"tie_mc": 0.1659}, "8": {"tie_mc": 0.0278}},
    "G_se": {
        "acc_se_n200_p.75": 0.0306,
        "acc_se_n2553_p.6": 0.0097,
        "kappa_se_n2553_approx(po=.57,pe=.36)": 0.0153,
    },
    "H_persuasion_depth": {
        "p=0.6,a=0.4,c=0.2,n=8,win=None": {
            "layer2_neuron_acc_exact": 0.6431,
            "majority_layer1": 0.7105,
            "majority_layer2_mc": 0.7826,
            "majority_both_layers_mc": 0.7927,
        },
        "p=0.7,a=0.2,c=0.2,n=8,win=2": {
            "layer2_neuron_acc_exact": 0.6874,
            "majority_layer1": 0.8723,
            "majority_layer2_mc": 0.823,
            "majority_both_layers_mc": 0.8652,
        },
    },
}
DRAWS = 20_000
"""Samples behind the Monte Carlo figures of the file, as its "mc20000" says."""


def known(section: str) -> list[dict[str, Any]]:
    """The section as it stands here, and in the file."""
    return [KNOWN[section], *([json.loads(FILE.read_text())[section]] if FILE.is_file() else [])]


def near(found: float, expected: float, draws: int) -> bool:
    """Shares: within four standard errors, of a share of so many."""
    return abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def judge(folder: Path, population: str, labels: Sequence[int], **network: Any) -> JudgedRun:
    """`depthlab judge run` on made-up samples, in this process, and its folder read again."""
    folder.mkdir()
    lines = [
        {"id": f"s{i}", "query": f"q{i}", "response1": f"a{i}", "response2": f"b{i}", "human": human}
        for i, human in enumerate(labels)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    width = network.pop("width")
    config = JudgeConfig(
        data=str(folder / "pairs.jsonl"),
        judge=(f"simulated:{population}",),
        out=str(folder / "run"),
        network=NetworkConfig(roles=tuple(f"role {i}" for i in range(width)), **network),
        caching=CacheConfig(no_cache=True),
    )
    outcome = Run(config).judge(lambda text: None)
    assert outcome.stopped is None
    return read_run(folder / "run")


def balanced(count: int) -> list[int]:
    return [1 + i % 2 for i in range(count)]


def narrower(run: JudgedRun, width: int) -> list[Sample]:
    """The run at its first so many neurons, as `depthlab judge sweep` takes it."""
    return [
        replace(s, layers=tuple([item for item in layer if item.neuron <= width] for layer in s.layers))
        for s in run.samples
    ]


def credit(samples: Sequence[Sample], aggregation: str, depth: int | None = None) -> float:
    """Share of right verdicts, a tie being half right."""
    found = [(sample.verdict(aggregation, 0, depth=depth).winner, sample.human) for sample in samples]
    return sum(1.0 if winner == human else 0.5 * (winner == 0) for winner, human in found) / len(found)


def differences(run: JudgedRun, layer: int) -> np.ndarray:
    """Mean over both orders of every neuron's difference in favour of what people prefer: (samples, neurons)."""
    rows = []
    for sample in run.samples:
        of: dict[int, list[float]] = {}
        for item in sample.layers[layer]:
            assert isinstance(item, Review)
            of.setdefault(item.neuron, []).append(item.scores[0] - item.scores[1])
        rows.append([np.mean(of[neuron]) for neuron in sorted(of)])
    return np.array(rows)
