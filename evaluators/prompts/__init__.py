"""From a sample to messages: one Jinja template, and a table of nouns for the families."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from evaluators.errors import ConfigError
from evaluators.messages import Message
from evaluators.prompts.wrapping import code_for, wrap, wrap_line
from evaluators.written import read_yaml

_HERE = Path(__file__).parent
_NOUNS = ("response", "responses", "goal", "expert_in", "quality")
_KEYS = ("material", *_NOUNS, "perspectives")
_BLOCKS = ("system", "material", "roles", "review", "again")


@dataclass(frozen=True)
class Family:
    """The nouns of one family of tasks, and its standing perspectives."""

    response: str
    responses: str
    goal: str
    expert_in: str
    quality: str
    material: str = ""
    """Empty where a sample is its responses alone, such as two dialogues."""
    perspectives: tuple[str, ...] = ("Accuracy", "Relevance")
    without_material: Family | None = None
    """How it speaks of samples that have no query; None: its samples have one."""


@dataclass(frozen=True)
class Seen:
    """An earlier review as a reader is shown it."""

    role: str
    layer: int
    evidence: str
    scores: tuple[str, ...]
    """In the reader's order."""
    own: bool
    turned: bool
    """Written with the responses in the other order than the reader's."""


@dataclass(frozen=True)
class Texts:
    """The texts of a prompt that may be long; what does not fit is cut from these (see `fitting`)."""

    query: str
    presented: tuple[str, ...]
    """The responses in the order in which this call shows them."""
    reference: str | None = None
    evidence: tuple[str, ...] = ()

    def flat(self) -> list[str]:
        """All of them in one list."""
        return [self.query, *self.presented, *([] if self.reference is None else [self.reference]), *self.evidence]

    def rebuilt(self, flat: Sequence[str]) -> Texts:
        """The same shape with other texts."""
        split = 1 + len(self.presented)
        rest = split + (self.reference is not None)
        return Texts(
            flat[0],
            tuple(flat[1:split]),
            None if self.reference is None else flat[split],
            tuple(flat[rest:]),
        )


class Prompts:
    """The template and the families of a run."""

    def __init__(self, template: Path | None = None, families: Path | None = None) -> None:
        """Raises ConfigError where the user's own template or families cannot be used; names the file."""
        self.families = _families(_HERE / "families.yaml")
        if families is not None:
            self.families |= _families(families)
        sources: dict[str, str] = {}
        name = "default.j2"
        if template is not None:
            name = "--template"
            sources[name] = _read(template, "--template")
        loader = ChoiceLoader([DictLoader(sources), FileSystemLoader(_HERE)])
        # Texts of samples are values, never templates; the sandbox is for templates from elsewhere.
        self._environment = SandboxedEnvironment(
            loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
        )
        try:
            self._templates = self._inherited(name)
            self._check()
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f" line {line}" if line else ""
            raise ConfigError(f"--template {template}{where}: {error.message}") from error

    @property
    def without_query(self) -> frozenset[str]:
        """The families in which a query may be blank."""
        return frozenset(name for name, family in self.families.items() if family.without_material is not None)

    def family(self, name: str, query: str) -> Family:
        """The nouns for a sample with this query, which may be blank."""
        family = self.families[name]
        return family.without_material or family if not query.strip() else family

    @functools.cached_property
    def digest(self) -> str:
        """Of every prompt that can be made."""
        loader = self._environment.loader
        assert loader is not None
        names = [template.name for template in self._templates if template.name is not None]
        sources = [loader.get_source(self._environment, name)[0] for name in names]
        return hashlib.sha256(repr([sources, sorted(self.families.items())]).encode()).hexdigest()[:16]

    def _inherited(self, name: str) -> list[Template]:
        """The user's template, if there is one, then the default, whose blocks it replaces."""
        base = self._environment.get_template("default.j2")
        if name == "default.j2":
            return [base]
        own = self._environment.get_template(name)
        if not set(own.blocks) & set(_BLOCKS):
            raise TemplateError(f"defines none of the blocks {', '.join(_BLOCKS)}")
        return [own, base]

    def _check(self) -> None:
        """A template that names an unknown variable is found out before the first call."""
        asked = [(next(iter(self.families)), "query"), *((name, "") for name in sorted(self.without_query)[:1])]
        seen = (Seen("role", 1, "evidence", ("1", "2"), own=True, turned=True),)
        for (family, query), structured in itertools.product(asked, (False, True)):
            for given in (seen[:0], seen):
                texts = Texts(query, ("one", "two"), "reference", tuple(review.evidence for review in given))
                self.review(family, texts, "role", given, (1, 10), structured=structured, confidence=True)
            self.roles(family, Texts(query, ("one", "two")), exact=None, most=3, structured=structured)
            self.again(family, "review", ("one", "two"), "problem", (1, 10), structured=structured)

    def roles(
        self, family: str, texts: Texts, *, exact: int | None, most: int, structured: bool
    ) -> tuple[Message, ...]:
        """The question for perspectives."""
        return self._messages("roles", family, texts, exact_roles=exact, max_roles=most, structured=structured)

    def review(
        self,
        family: str,
        texts: Texts,
        role: str | None,
        seen: Sequence[Seen],
        scale: tuple[int, int],
        *,
        structured: bool,
        confidence: bool,
    ) -> tuple[Message, ...]:
        """The question for a review. `texts.evidence` holds the evidence of `seen`, in that order."""
        return self._messages(
            "review",
            family,
            texts,
            role=role,
            seen=seen,
            low=scale[0],
            high=scale[1],
            structured=structured,
            confidence=confidence,
        )

    def again(
        self,
        family: str,
        task: str,
        presented: Sequence[str],
        problem: str,
        scale: tuple[int, int],
        *,
        structured: bool,
    ) -> str:
        """What is said after a reply that could not be used."""
        low, high = scale
        return self._render(
            "again",
            family=self.families[family],
            task=task,
            pair=len(presented) > 1,
            problem=problem,
            low=low,
            high=high,
            structured=structured,
        )

    def _messages(self, block: str, family: str, texts: Texts, **variables: Any) -> tuple[Message, ...]:
        reviews: Sequence[Seen] = variables.pop("seen", ())
        role: str | None = variables.pop("role", None)
        mark = code_for([*texts.flat(), role or "", *(review.role for review in reviews)])
        seen = [
            {
                **vars(review),
                "role": wrap_line(review.role, "perspective", mark),
                "evidence": wrap(evidence, "review", mark),
            }
            for review, evidence in zip(reviews, texts.evidence, strict=True)
        ]
        nouns = self.family(family, texts.query)
        variables |= {
            "family": nouns,
            "mark": mark,
            "pair": len(texts.presented) > 1,
            "query": wrap(texts.query, nouns.material, mark) if nouns.material else "",
            "reference": None if texts.reference is None else wrap(texts.reference, "reference", mark),
            "presented": [
                wrap(text, f"{nouns.response} {position}" if len(texts.presented) > 1 else nouns.response, mark)
                for position, text in enumerate(texts.presented, start=1)
            ],
            "role": None if role is None else wrap_line(role, "perspective", mark),
            "seen": seen,
        }
        variables["material"] = self._render("material", **variables)
        return (
            Message("system", self._render("system", **variables)),
            Message("user", self._render(block, **variables)),
        )

    def _render(self, block: str, **variables: Any) -> str:
        renders = [template.blocks[block] for template in self._templates if block in template.blocks]
        context = self._templates[-1].new_context(variables)
        context.blocks[block] = renders  # so that super() in the user's block is the default's
        return "".join(renders[0](context)).strip()


def _read(path: Path, flag: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error


def _families(path: Path) -> dict[str, Family]:
    content = read_yaml(path, "--families")
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"--families {path}: must hold NAME: {{{', '.join(('material', *_NOUNS))}}}")
    return {str(name): _family(path, str(name), nouns) for name, nouns in content.items()}


def _family(path: Path, name: str, nouns: Any) -> Family:
    if not isinstance(nouns, Mapping) or set(nouns) - {*_KEYS, "without_material"} or set(_NOUNS) - set(nouns):
        raise ConfigError(
            f"--families {path}: {name}: must hold {', '.join(_NOUNS)} (and, if you like, material, perspectives, "
            "without_material)"
        )
    own = {key: value for key, value in nouns.items() if key != "without_material"}
    alone = nouns.get("without_material", None if own.get("material") else {})
    if alone is not None and (not isinstance(alone, Mapping) or set(alone) - set(_KEYS[1:])):
        raise ConfigError(
            f"--families {path}: {name}: without_material: must hold some of {', '.join(_KEYS[1:])}: what differs for "
            "samples without a query"
        )
    family = _nouns(path, name, own)
    if alone is None:
        return family
    bare = _nouns(path, f"{name}: without_material", {**own, **alone, "material": None})
    # A query that is given nevertheless is shown as what it is.
    return dataclasses.replace(family, material=family.material or "query", without_material=bare)


def _nouns(path: Path, name: str, nouns: Mapping[str, Any]) -> Family:
    material = nouns.get("material")
    given = {**nouns, "perspectives": nouns.get("perspectives", ["Accuracy", "Relevance"])}
    wrong = [key for key in _NOUNS if not isinstance(given[key], str) or not given[key].strip()]
    if material is not None and (not isinstance(material, str) or not material.strip()):
        wrong.append("material")
    listed = given["perspectives"]
    if not isinstance(listed, list) or not all(isinstance(one, str) and one.strip() for one in listed):
        wrong.append("perspectives")
    if wrong:
        raise ConfigError(
            f"--families {path}: {name}: {', '.join(wrong)} must be a text (perspectives: a list of them)"
        )
    return Family(**{key: given[key] for key in _NOUNS}, material=material or "", perspectives=tuple(listed))
