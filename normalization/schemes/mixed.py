from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
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
        return 1, item
    if isinstance(item, Mapping):
        count = item.get("count", 1)
        known = {field.name for field in fields(LayerPlan)}
        if unknown := set(item) - known - {"count"}:
            raise ValueError(
                f"layers: unknown field {', '.join(sorted(unknown))} in {dict(item)!r}; has {sorted(known)}"
            )
        return count, LayerPlan(**{name: value for name, value in item.items() if name != "count"})
    if not (match := _ITEM.fullmatch(str(item))):
        raise ValueError(f"layers: {item!r} is no item: {_HELP}")
    names = re.split(r"\s*\+\s*", match[2])
    for name in names:
        if get(name).name == "mixed":
            raise ValueError("layers: 'mixed' cannot be one of its own parts")
    return (int(match[1]) if match[1] else None), names


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
