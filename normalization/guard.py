"""A config.json that no stock class accepts, so that a checkpoint with a scheme never loads as another network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

_FIELD = "hidden_size"

_HINT = "--normalization.Config"


class GuardedConfig:
    """Put in front of a stock config class that has a `normalization` field.

    `LlamaForCausalLM.from_pretrained` and its like read any config.json, with no more than a warning at a foreign
    model type. But they check the types of their fields: a text in place of `hidden_size`, without which no program
    can build the model, stops them, and says what is needed. `auto_map` puts the same words into what the Auto
    classes raise at a model type that they do not know.
    """

    needed: ClassVar[str]
    """What a user has to do to load such a checkpoint."""

    def to_json_file(self, json_file_path: Any, use_diff: bool = True) -> None:
        """Write config.json, guarded.

        Raises:
            ValueError: a stock model was built from this config, whose scheme it does not follow.
        """
        classes: Any = getattr(self, "architectures", None) or ()
        stock = [name for name in classes if not name.startswith("Depthlab")]
        if getattr(self, "normalization", None) is not None and stock:
            raise ValueError(
                f"a {stock[0]} does not follow the normalization scheme that its config names, so saving it would "
                "make a checkpoint of another network; build the model with AutoModelForCausalLM"
            )
        super().to_json_file(json_file_path, use_diff)  # type: ignore[misc]
        path = Path(json_file_path)
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("normalization") is not None:
            path.write_text(
                json.dumps(guarded(content, self.needed, self._guard()), indent=2, sort_keys=True) + "\n", "utf-8"
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read what `to_json_file` wrote, or a plain dict."""
        return super().from_dict(unguarded(config_dict, cls._guard()), **kwargs)  # type: ignore[misc]

    @classmethod
    def _guard(cls) -> str:
        """The key in config.json that holds the guard."""
        return getattr(cls, "attribute_map", {}).get(_FIELD, _FIELD)


def guarded(content: dict[str, Any], needed: str, key: str) -> dict[str, Any]:
    """A config's content with the guard under `key`, whose true value moves into `normalization`."""
    scheme = content["normalization"]["scheme"]
    text = f"This checkpoint's layers follow the normalization scheme {scheme!r} and need {needed}."
    return content | {
        key: text,
        "normalization": content["normalization"] | {key: content[key]},
        "auto_map": content.get("auto_map") or {"AutoConfig": f"{text}{_HINT}"},
    }


def unguarded(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The inverse of `guarded`; leaves alone what was not guarded."""
    content = dict(content)
    if isinstance(content.get(key), str):
        del content[key]
        if isinstance(stored := content.get("normalization"), dict):
            content["normalization"] = {name: value for name, value in stored.items() if name != key}
            content |= {name: value for name, value in stored.items() if name == key}
        if content.get("auto_map", {}).get("AutoConfig", "").endswith(_HINT):
            del content["auto_map"]
    return content
