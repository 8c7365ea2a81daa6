from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Annotated, Any

from normalization.plan import LayerPlan
from normalization.schemes import get, scheme

_ITEM = re.compile(r"\s*(?:(\d+)\s+)?([a-z]\w*(?:\s*\+\s*[a-z]\w*)*)\s*")
_HELP = (
    "what each layer follows, first to last: '3 post, lns' is 3 post layers, then lns in the rest; "
    "'peri+lns' joins both (all norms of either, scales multiplied)"
)


@scheme("mixed", source="placements layer by layer, chosen by the user")
def mixed(layer: int, depth: int, *, layers: Annotated[Any, _HELP] = None) -> LayerPlan:
    """Any scheme in any layer, as `layers` says.

    `layers` is a text as above, or a list of such items; an item may also be a mapping of `LayerPlan`'s fields, for
    one layer (`{"norm_in": True, "input_scale": 0.5}`) or with a `count`.
    """
    items = [_item(part) for part in (layers.split(",") if isinstance(layers, str) else _listed(layers))]
    counted = sum(count for count, _ in items if count is not None)
    open_items = sum(count is None for count, _ in items)
    if open_items > 1 or counted > depth or (not open_items and counted != depth):
        raise ValueError(
            f"layers={layers!r} names {counted} layers and {open_items} items without a number, for a model of "
            f"{depth}: the numbers must add up to the model's layers, or one item without a number takes the rest"
        )
    end = 0
    for count, plan in items:
        end += depth - counted if count is None else count
        if layer <= end:
            return plan if isinstance(plan, LayerPlan) else _joined(get(name).plan(layer, depth) for name in plan)
    raise AssertionError("the items cover every layer")


def _listed(layers: Any) -> list[Any]:
    if not isinstance(layers, list | tuple) or not layers:
        raise ValueError(f"layers={layers!r}: {_HELP}")
    return list(layers)


def _item(item: Any) -> tuple[int | None, LayerPlan | list[str]]:
    if isinstance(item, LayerPlan):
        return 1, _checked(item)
    if isinstance(item, Mapping):
        count = item.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"layers: count={count!r} in {dict(item)!r} must be a number of layers")
        known = [field.name for field in fields(LayerPlan)]
        for name in item:
            if name not in (*known, "count"):
                near = get_close_matches(str(name), known, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(f"layers: unknown field {name!r}{hint} in {dict(item)!r}; has {', '.join(known)}")
        return count, _checked(LayerPlan(**{name: value for name, value in item.items() if name != "count"}))
    if not (match := _ITEM.fullmatch(str(item))):
        raise ValueError(f"layers: {item!r} is no item: {_HELP}")
    names = re.split(r"\s*\+\s*", match[2])
    for name in names:
        if get(name).name == "mixed":
            raise ValueError("layers: 'mixed' cannot be one of its own parts")
    return (int(match[1]) if match[1] else None), names


def _checked(plan: LayerPlan) -> LayerPlan:
    for field in fields(plan):
        value: Any = getattr(plan, field.name)
        is_flag = isinstance(field.default, bool)
        if isinstance(value, bool) is not is_flag or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"layers: {field.name}={value!r} must be {'true or false' if is_flag else 'a number'}")
    if not plan.slots:
        raise ValueError(f"layers: a plan needs at least one of norm_in, norm_out and norm_post; {plan} has none")
    return replace(plan, input_scale=float(plan.input_scale), residual_scale=float(plan.residual_scale))


def _joined(plans: Iterable[LayerPlan]) -> LayerPlan:
    joined = LayerPlan()
    for plan in plans:
        joined = LayerPlan(
            norm_in=joined.norm_in or plan.norm_in,
            norm_out=joined.norm_out or plan.norm_out,
            norm_post=joined.norm_post or plan.norm_post,
            input_scale=joined.input_scale * plan.input_scale,
            residual_scale=joined.residual_scale * plan.residual_scale,
        )
    return joined
