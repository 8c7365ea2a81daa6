"""The settings of a judging run: frozen dataclasses, checked when made, saved with every run as `config.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Self

import tyro

from evaluators.aggregation import AGGREGATIONS
from evaluators.benchmarks import loaders
from evaluators.command_line import REQUIRED
from evaluators.errors import ConfigError, UserError
from evaluators.network import Network
from evaluators.presets import architectures, summary
from evaluators.registry import Plugin, told, use
from evaluators.running.judge_spec import JudgeFlag, JudgeSpec, parse_options


def _check(condition: bool, flag: str, value: Any, must: str) -> None:
    if not condition:
        raise ConfigError(f"--{flag} {value}: must be {must}")


def _choice(names: Iterable[str], help_text: str) -> Any:
    # Checked by the registry, which knows the nearest name; shown as the choices that there are.
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}", help=help_text)


# Annotations are evaluated where they cannot see loop variables, so these are made here.
_PRESET = _choice(architectures.names(), " ".join(f"{name}: {summary(name)}" for name in architectures.names()))
_AGGREGATION = _choice(AGGREGATIONS, " ".join(f"{name}: {text[0]}." for name, text in AGGREGATIONS.items()))
_FORMAT = _choice(loaders.names(), "Format of the data.")


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network. What is not given is the preset's."""

    preset: Annotated[str, _PRESET] = "widedeep"
    preset_option: tuple[str, ...] = ()
    """Settings of a preset that have no flag here, as NAME=VALUE: fields of its class."""
    depth: int | None = None
    """Layers."""
    width: int | None = None
    """Neurons in a layer, exactly so many; as many as the sample has roles if not given."""
    min_roles: int | None = None
    """At least so many roles; missing ones are filled up with the family's standing perspectives."""
    max_roles: int | None = None
    """At most so many roles."""
    roles: tuple[str, ...] | None = None
    """Fixed roles, such as --roles Accuracy "Clarity: is it easy to read?"; nobody is asked for roles then."""
    connection: str | None = None
    """What a neuron sees of the layer before: `full`, or `window:k` for neurons less than k places away."""
    perspective: Literal["own", "seen"] | None = None
    """Perspective of neurons in layer 2 and up: their own role, or the roles of all whose reviews they see."""
    both_orders: bool | None = None
    """Show the two responses in both orders."""
    reviews: int | None = None
    """Reviews per neuron and order."""
    aggregation: Annotated[str | None, _AGGREGATION] = None
    tie_margin: float | None = None
    """A difference of at most so much is a tie; in points of the scale, or as a share of the votes."""
    temperatures: tuple[float | None, ...] | None = None
    """Sampling temperature of layer 1, 2, ...; the last holds for all after it; None: the server's default."""

    def build(self, judges: int) -> Network:
        """The preset's network with what was given here in place of its own.

        Raises:
            ConfigError: an unknown preset, an impossible setting, or a plug-in that is broken.
        """
        make = architectures.get(self.preset, flag="--preset")
        try:
            base = make(judges)
        except UserError:
            raise
        except Exception as error:
            raise ConfigError(f"--preset {self.preset}: {told(error)}") from error
        if not isinstance(base, Network):
            raise ConfigError(f"--preset {self.preset}: gives a {type(base).__name__}, not a Network")
        names = [item.name for item in fields(self) if not item.name.startswith("preset")]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if "width" in given and "min_roles" in given and given["width"] < given["min_roles"]:
            raise ConfigError(f"--width {given['width']} and --min-roles {given['min_roles']} contradict each other")
        own = [item.name for item in fields(base) if item.init and item.name not in names]
        options = parse_options(self.preset_option, "--preset-option")
        if unknown := [name for name in options if name not in own]:
            raise ConfigError(f"--preset-option {unknown[0]}: preset {self.preset} takes {', '.join(own) or 'none'}")
        try:
            return replace(base, **given, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"--preset {self.preset}: {told(error)}") from error


@dataclass(frozen=True)
class AskingConfig:
    """How judges are asked and their replies read."""

    scale: tuple[int, int] = (1, 10)
    """Lowest and highest score."""
    scores: Literal["text", "probabilities"] = "text"
    """Scores as written, or expected under the token probabilities (needs --scale 1 9 or shorter: one digit)."""
    max_tokens: int = 1024
    """Longest reply, in tokens."""
    reasks: int = 2
    """Ask again so often for a reply that cannot be read; then the review is unscored."""
    structured: Literal["auto", "on", "off"] = "auto"
    """Ask for JSON under a schema: where the server takes one, always, or never."""
    confidence: bool = False
    """Ask reviewers how sure they are (on if the aggregation is weighted by it)."""
    context_tokens: int | None = None
    """Context of the judge, in tokens; asked of the server or known if not given. Longer prompts are shortened by a
    rule and marked; none is where the context is unknown."""
    assign: Literal["neurons", "layers"] = "neurons"
    """With several judges: dealt out to the neurons in turn, or one to each layer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        low, high = self.scale
        _check(0 <= low < high <= 100, "scale", f"{low} {high}", "two whole numbers, 0 <= LOW < HIGH <= 100")
        if self.scores == "probabilities" and high > 9:
            raise ConfigError(f"--scores probabilities: needs scores of one digit: add --scale {min(low, 1)} 9")
        _check(self.max_tokens > 0, "max-tokens", self.max_tokens, "positive")
        _check(self.reasks >= 0, "reasks", self.reasks, "at least 0")
        _check(
            self.context_tokens is None or self.context_tokens > 0, "context-tokens", self.context_tokens, "positive"
        )


@dataclass(frozen=True)
class ServerConfig:
    """Where judges are, and how fast they are asked."""

    base_url: str | None = None
    """URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, for judges without one of their own; that
    of the variable OPENAI_BASE_URL if not given, else OpenAI's."""
    key_env: str | None = None
    """Environment variable that holds the key; OPENAI_API_KEY if not given, but for judges with a URL of their own."""
    option: tuple[str, ...] = ()
    """Passed through to servers and chat templates, as NAME=VALUE: --option reasoning_effort=low
    'extra_body={"chat_template_kwargs": {"enable_thinking": false}}'. null leaves a parameter out."""
    concurrency: int = 32
    """Calls in flight to a server and account at most; fewer where it refuses so many."""
    requests_per_minute: float | None = None
    """Calls; the limit holds for a server and account, over all judges and processes."""
    tokens_per_minute: float | None = None
    """Tokens of prompts and replies; holds as --requests-per-minute does."""
    timeout: float = 120.0
    """Seconds for one call, its whole reply included."""
    retries: int = 6
    """Try a call again so often after a server error, a timeout or a dropped connection (rate limits do not count)."""
    backoff: float = 1.0
    """Seconds to wait at most before the first retry, doubled each time; a server's Retry-After goes before."""
    breaker: int = 8
    """After so many calls in a row without an answer, only one at a time is sent until the server is back."""
    give_up: float = 300.0
    """Stop the run when nothing has worked for so many seconds."""
    batch: int = 8
    """hf: prompts in a batch."""
    device: str | None = None
    """hf: cpu, cuda, cuda:1, ...; a GPU where there is one if not given."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "option", tuple(self.option))
        parse_options(self.option)
        for name in ("concurrency", "timeout", "batch", "breaker", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            _check(value is None or value > 0, name.replace("_", "-"), value, "positive")
        for name in ("retries", "backoff", "give_up"):
            _check(getattr(self, name) >= 0, name.replace("_", "-"), getattr(self, name), "at least 0")


@dataclass(frozen=True)
class MoneyConfig:
    """What it costs."""

    budget: float | None = None
    """USD that --out may cost over all starts; the run stops before it would pass them."""
    prices: str | None = None
    """YAML file of MODEL: {input: USD, output: USD} per million tokens, added to the built-in table."""
    dry_run: bool = False
    """Estimate calls, tokens and cost, and make no call."""

    def __post_init__(self) -> None:
        _check(self.budget is None or self.budget > 0, "budget", self.budget, "positive")


@dataclass(frozen=True)
class CacheConfig:
    """Replies that were paid for are kept, for all runs of this user."""

    cache: str | None = None
    """SQLite file; ~/.cache/depthlab/judge.sqlite if not given."""
    no_cache: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Neither read nor write it."""
    refresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not read it, but write the new replies."""

    def __post_init__(self) -> None:
        if self.no_cache and (self.refresh or self.cache is not None):
            raise ConfigError("--no-cache excludes --cache and --refresh")


PluginFlag = Annotated[
    Plugin,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE.py",
        instance_from_str=lambda words: Plugin(words[0]),
        is_instance=lambda value: isinstance(value, Plugin),
        str_from_instance=lambda plugin: [plugin.path],
    ),
]
"""`Plugin` as a flag."""


@dataclass(frozen=True)
class JudgeConfig:
    """Judge every sample of a file with a wide and deep network of LLM reviewers.

    The same flags with the same --out go on where a run stopped. A YAML file given with --config holds the same names
    in their sections (as in a run's config.yaml); flags override it.
    """

    data: Annotated[str, REQUIRED] = ""
    """JSON Lines, one object a line: query, response1, response2, and if you have them id, human (1, 2, or 0 for a
    tie), family, dataset, language, reference. Without response2, response1 is graded by itself."""
    judge: Annotated[tuple[JudgeFlag, ...], REQUIRED] = ()
    """Who judges: openai:MODEL, hf:PATH, scripted:FILE or simulated:NAME=VALUE,...; several make a mixed panel.
    openai:MODEL@URL#KEY is a model on a server of its own, whose key is in the environment variable KEY; a YAML file
    can give each judge options, limits and prices too (see docs/judging.md)."""
    out: Annotated[str, REQUIRED] = ""
    """Folder of the results."""
    format: Annotated[str, _FORMAT] = "jsonl"
    format_option: tuple[str, ...] = ()
    """Settings of a format of your own, as NAME=VALUE."""
    fields: tuple[str, ...] = ()
    """Other names of fields, as OURS=THEIRS: --fields query=question response1=answer_a."""
    limit: int | None = None
    """Judge only the first so many samples."""
    skip_refused: bool = False
    """Go on without lines that are refused; the summary names them. If not given, they stop the run at its start."""
    families: str | None = None
    """YAML file with families of tasks of your own (see docs/judging.md)."""
    plugin: tuple[PluginFlag, ...] = ()
    """Python file with judges, presets or formats of your own (see docs/judging.md). It is run, so name none that you
    have not read."""
    template: str | None = None
    """Jinja file in place of blocks of the prompts (see docs/judging.md)."""
    seed: int | None = None
    """Seed of simulated and local judges, and sent to servers if given."""
    retry_unscored: bool = False
    """Judge samples of --out again of which anything is unscored; what is scored comes from the cache."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    asking: AskingConfig = field(default_factory=AskingConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    money: MoneyConfig = field(default_factory=MoneyConfig)
    caching: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "format_option", tuple(self.format_option))
        object.__setattr__(self, "judge", tuple(map(JudgeSpec.load, self.judge)))
        object.__setattr__(self, "plugin", use([*map(Plugin.of, self.plugin)]))
        parse_options(self.format_option, "--format-option")
        _check(self.limit is None or self.limit > 0, "limit", self.limit, "positive")
        _check(self.seed is None or self.seed >= 0, "seed", self.seed, "at least 0")
        self.network.build(len(self.judge) or 1)

    def complete(self) -> Self:
        """These settings, if a run can start with them; a file with some of them need not say all.

        Raises:
            ConfigError: no data, judge or folder is named.
        """
        if not self.data:
            raise ConfigError("--data: name the file of samples")
        if not self.judge:
            raise ConfigError("--judge: name a judge, such as openai:gpt-4o-mini (with --base-url for your own server)")
        if not self.out and not self.money.dry_run:
            raise ConfigError("--out: name the folder of the results")
        return self
