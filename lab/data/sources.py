"""Which kind of source `--data.source` names."""

from __future__ import annotations

from lab.data.config import DataConfig
from lab.data.errors import DataError
from lab.data.hub import HubSource
from lab.data.local import LocalSource, is_local, local_source

Source = LocalSource | HubSource


def resolve_source(config: DataConfig) -> Source:
    """Local files (`builtin` included) or one Hugging Face data set.

    Raises:
        DataError: nothing is there, the kinds are mixed, or a flag is given that this kind does not use.
    """
    remote = [entry for entry in config.source if not is_local(entry)]
    if not remote:
        for flag, value in (("subset", config.subset), ("heldout-split", config.heldout_split)):
            if value is not None:
                raise DataError(
                    f"--data.{flag} {value}: only Hugging Face data sets have one, and --data.source "
                    f"{' '.join(config.source)} is local; leave it out"
                )
        return local_source(config)
    if len(config.source) > 1:
        raise DataError(
            f"--data.source {' '.join(config.source)}: {remote[0]!r} is no file here, so it is taken for a "
            "Hugging Face data set, and that must be the only source"
        )
    return HubSource(remote[0], config.subset, config.split, config.heldout_split, config.field)
