"""A normalization as it is stored in a checkpoint's config: scheme, options, final norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from normalization.plan import LayerPlan
from normalization.schemes import get as get_scheme


@dataclass(frozen=True)
class NormalizationSpec:
    """Which scheme, with which options (all resolved), and whether the model's final norm is kept."""

    scheme: str
    options: Mapping[str, Any]
    final_norm: bool = True

    @classmethod
    def make(cls, scheme: str, *, final_norm: bool = True, **options: Any) -> NormalizationSpec:
        """Resolve a scheme's name (or alias) and options.

        Raises:
            ValueError: unknown scheme or option.
        """
        found = get_scheme(scheme)
        return cls(found.name, found.resolve(options), final_norm)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> NormalizationSpec:
        """The inverse of `to_dict`; options that the stored dict lacks take the scheme's defaults.

        Raises:
            ValueError: not a normalization as depthlab stores it, or a scheme or option unknown here.
        """
        unknown = set(stored) - {"scheme", "options", "final_norm"}
        if "scheme" not in stored or unknown:
            raise ValueError(
                f"the config's `normalization` must hold scheme, options and final_norm, not {stored!r}; "
                "was the checkpoint written by a newer depthlab?"
            )
        return cls.make(stored["scheme"], final_norm=stored.get("final_norm", True), **stored.get("options", {}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        options = {name: _plain(value) for name, value in self.options.items()}
        return {"scheme": self.scheme, "options": options, "final_norm": self.final_norm}

    def plans(self, depth: int) -> list[LayerPlan]:
        """The plan of each of `depth` layers.

        Raises:
            ValueError: the scheme refuses its options at this depth, or the final norm is dropped although
                the last layer does not end in a norm.
        """
        plans = get_scheme(self.scheme).plans(depth, self.options)
        if not self.final_norm and not plans[-1].norm_post:
            raise ValueError(
                f"final_norm=False leaves {self.scheme!r} without any norm before the head, since its last "
                "layer does not end in one; it is for schemes whose last layer does (post, deepnorm)"
            )
        return plans


def _plain(value: Any) -> Any:
    if isinstance(value, LayerPlan):
        return asdict(value)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
