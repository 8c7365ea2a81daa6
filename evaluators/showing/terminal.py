"""What people read in a terminal: a run's summary, one sample's network. Texts of models are shown, never obeyed."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluators.asking.ledger import Spent
from evaluators.running.estimate import REPLY_TOKENS, Estimate
from evaluators.running.tally import Tally
from evaluators.storing import one_line, printable

_SHOWN = 5
_WINNERS = {1: "response 1", 2: "response 2", 0: "tie"}


def _indented(text: str, by: int) -> str:
    return textwrap.indent(printable(text.strip()) or "(blank)", " " * by)


def network_text(record: Mapping[str, Any]) -> Iterator[str]:
    """One sample's network, line by line: texts, roles, layers, verdict."""
    where = f"{record['dataset'] or 'no data set'}, family {record['family']}"
    yield f"sample {one_line(record['id'])}  ({one_line(where)})"
    for name in ("query", "reference", "response1", "response2"):
        if record[name] is not None:
            yield f"\n{name}"
            yield _indented(record[name], 2)
    for sign in record["suspicious"]:
        yield f"suspicious: {sign}"
    yield "\nroles"
    for number, role in enumerate(record["roles"], start=1):
        focus = f": {role['focus']}" if role["focus"] else ""
        standing = "  (standing)" if role["standing"] else ""
        yield _indented(one_line(f"{number}. {role['name']}{focus}") + standing, 2)
    for failure in record["roles_failures"]:
        yield _indented(f"failed: {failure['reason']}", 2)
    for number, layer in enumerate(record["layers"], start=1):
        yield f"\nlayer {number}"
        for item in layer:
            yield from _review_text(item)
    yield "\n" + verdict_text(record)


def _review_text(item: Mapping[str, Any]) -> Iterator[str]:
    order = {"12": "1 shown first", "21": "2 shown first"}[item["order"]]
    head = f"  neuron {item['neuron']}, {order}" + (f", review {item['index'] + 1}" if item["index"] else "")
    judges = sorted({call["judge"] for call in item["calls"]})
    head += f", by {one_line(', '.join(judges))}" if judges else ""
    if item["shortened"]:
        head += f", {item['shortened']:,} characters of its prompt left out"
    if "reason" in item:
        yield f"{head}: unscored: {one_line(item['reason'])}"
        return
    scores = " : ".join(f"{score:g}" for score in item["scores"])
    sure = f", confidence {item['confidence']:g}" if item["confidence"] is not None else ""
    yield f"{head}: {scores}{sure}" + (f"  [{one_line(item['role'])}]" if item["role"] else "")
    yield _indented(item["evidence"], 6)


def verdict_text(record: Mapping[str, Any]) -> str:
    """The verdict on a line."""
    verdict = record["verdict"]
    if verdict["scores"] is None:
        return f"verdict: unscored: {one_line(verdict['reason'])}"
    scores = " : ".join(f"{score:.4g}" for score in verdict["scores"])
    said = "" if verdict["winner"] is None else f"{_WINNERS[verdict['winner']]}, "
    human = "" if record["human"] is None else f"; people: {_human(record)}"
    return f"verdict: {said}{scores} from {verdict['scored']} reviews, {verdict['unscored']} unscored{human}"


def _human(record: Mapping[str, Any]) -> str:
    return f"{record['human']:g}" if record["response2"] is None else _WINNERS[int(record["human"])]


def summary_text(tally: Tally, *, seconds: float | None) -> Iterator[str]:
    """A run's summary, line by line."""
    named = {"1": "response 1", "2": "response 2", "tie": "tie", "graded": "graded"}
    parts = [f"{named[name]} {tally.winners[name]:,}" for name in named if tally.winners[name]]
    unscored = sum(tally.unscored_samples.values())
    yield f"verdicts    {tally.samples:,} samples: {', '.join([*parts, f'unscored {unscored:,}'])}"
    yield from _reasons("            unscored: ", tally.unscored_samples)
    failed = sum(tally.unscored_reviews.values())
    yield f"reviews     {tally.reviews:,}, unscored {failed:,}"
    yield from _reasons("            unscored: ", tally.unscored_reviews)
    if tally.shortened:
        yield f"shortened   {tally.shortened:,} samples whose prompts did not fit the context"
    if tally.blank:
        yield f"blank       {tally.blank:,} samples with a blank response, judged like others"
    if tally.thoughts:
        yield f"thoughts    {tally.thoughts:,} replies, {tally.thoughts_length:,} characters, kept and read by nobody"
    if tally.suspicious_samples:
        kinds = ", ".join(f"{kind} {count}" for kind, count in tally.suspicious.most_common())
        yield f"suspicious  {tally.suspicious_samples:,} samples with responses that try to judge themselves ({kinds})"
    took = "" if seconds is None else f", {_duration(seconds)}"
    yield f"calls       {spent_text(tally.total)}{took}"
    if len(tally.bill.by_judge) > 1:
        for name, spent in tally.bill.by_judge.items():
            yield f"            {one_line(name)}: {spent_text(spent)}"
    for layer, spent in tally.bill.by_layer.items():
        yield f"            {f'layer {layer}' if layer else 'roles'}: {spent_text(spent)}"
    if lost := tally.total.lost:
        yield f"            {lost:,} tries without an answer, which a provider may have billed"
    metrics = tally.metrics()["agreement"]
    if metrics is not None and metrics["samples"]:
        kappa = "not defined" if metrics["kappa"] is None else f"{metrics['kappa']:.4f}"
        yield (
            f"agreement   with people on {metrics['samples']:,} scored samples: accuracy {metrics['accuracy']:.4f}, "
            f"macro-F1 {metrics['macro_f1']:.4f} (labels {', '.join(map(str, metrics['labels']))}), kappa {kappa}"
        )


def refused_lines(refused: Mapping[int, str] | Mapping[str, str]) -> Iterator[str]:
    """Lines of the data that were passed over, counted, the first of them with their reasons."""
    if refused:
        yield f"refused     {len(refused):,} lines of the data, passed over (--skip-refused)"
        for number, reason in itertools.islice(refused.items(), _SHOWN):
            yield f"            line {number}: {one_line(reason, 160)}"
        if len(refused) > _SHOWN:
            yield f"            and {len(refused) - _SHOWN:,} more"


def _reasons(head: str, reasons: Mapping[str, int]) -> Iterator[str]:
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    for reason, count in ordered[:5]:
        yield f"{head}{count:,} x {one_line(reason, 160)}"
    if len(ordered) > 5:
        yield f"{head}{sum(count for _, count in ordered[5:]):,} for {len(ordered) - 5} other reasons"


def spent_text(spent: Spent) -> str:
    """Calls, tokens and cost."""
    if not spent.calls and not spent.prompt_tokens:
        return f"0 made, {spent.cached:,} from the cache"
    cost = f"{spent.cost:.4f} USD" if spent.cost or not spent.unpriced else "unpriced"
    if spent.cost and spent.unpriced:
        cost += f" and {spent.unpriced:,} calls unpriced"
    tokens = f"{spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens"
    if spent.estimated:
        tokens += f" (estimated for {spent.estimated:,} calls, whose usage the server did not tell)"
    return f"{spent.calls:,} made, {spent.cached:,} from the cache, {tokens}, {cost}"


def estimates_text(found: Sequence[tuple[int, Estimate]]) -> Iterator[str]:
    """Of a dry run: an estimate for each number of neurons from the fewest to the most, and which to expect."""
    names = ("cheapest", "likely", "most") if len(found) == 3 else ("cheapest", "most") if len(found) == 2 else ("",)
    for (roles, estimate), name in zip(found, names, strict=True):
        yield (
            f"{roles:>3} neurons a layer: {estimate.calls:,} calls, {estimate.prompt_tokens:,} + "
            f"{estimate.completion_tokens:,} tokens (replies of {REPLY_TOKENS}), {_price(estimate)}"
            + (f" ({name})" if name else "")
        )
    _, likely = found[len(found) // 2]
    first, last = found[0][1], found[-1][1]
    between = (
        f", from {_amount(first)} to {_amount(last)} as samples call for few or many roles" if first != last else ""
    )
    yield f"expect      {_price(likely)}, {likely.calls:,} calls{between}"
    yield "            what a model thinks before it answers comes on top; how much that is, nobody can tell before"


def _price(estimate: Estimate) -> str:
    return "unpriced" if estimate.cost is None else f"about {estimate.cost:.2f} USD"


def _amount(estimate: Estimate) -> str:
    return f"{estimate.calls:,} calls" if estimate.cost is None else f"{estimate.cost:.2f} USD"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
