"""The table of families and schemes in docs/normalization.md is what the code can do.

`python -m tests.normalization.test_documentation` writes it anew, with a column for every scheme. One that has none yet
fails nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import normalization
from normalization import families, schemes
from tests.normalization import oracle, tiny

PAGE = Path(__file__).parents[2] / "docs" / "normalization.md"
BEGIN, END = "<!-- families: begin -->\n", "<!-- families: end -->"


def cell(family: str, scheme: str) -> str:
    model = normalization.from_config(tiny.config(family), scheme, **oracle.NEEDED.get(scheme, {})).eval()
    assert bool(tiny.logits(model).isfinite().all())
    if model.config.model_type == family:
        return "stock"
    try:
        normalization.fold(model)
    except ValueError:
        return "yes"
    return "folds"


def table(names: Sequence[str]) -> str:
    rows = [f"| family | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    rows += [f"| {family} | {' | '.join(cell(family, name) for name in names)} |" for family in families.FAMILIES]
    return "\n".join(rows) + "\n"


def parts() -> tuple[str, str, str]:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    middle, _, after = rest.partition(END)
    return before, middle, after


def columns() -> list[str]:
    """The schemes that the page's table shows."""
    return re.findall(r"`(\w+)`", parts()[1].partition("\n")[0])


def test_the_page_shows_what_every_family_and_scheme_can_do():
    assert {"pre", "post", "mix", "lns", "deepnorm", "peri", "out", "mixed"} <= set(columns())
    assert parts()[1] == table(columns()), "run python -m tests.normalization.test_documentation"


def test_the_page_names_every_scheme_with_its_equation_and_paper():
    text = PAGE.read_text(encoding="utf-8")
    for name in columns():
        assert f"\n| `{name}`" in text
        for word in schemes.get(name).source.split():
            if word.startswith("arXiv:"):
                assert word in text, name


if __name__ == "__main__":
    head, _, tail = parts()
    PAGE.write_text(head + BEGIN + table(schemes.names()) + END + tail, encoding="utf-8")
