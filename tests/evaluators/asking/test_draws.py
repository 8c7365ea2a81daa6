"""Equal prompts are different draws: against a real server whose scores differ from call to call."""

from __future__ import annotations

import itertools
import json

import pytest

from evaluators.errors import ConfigError
from evaluators.network import Network
from tests.evaluators.conftest import records, write_pairs
from tests.evaluators.fakes import FakeJudge, judged


@pytest.fixture
def numbered(server):
    """No two of its replies are equal: their scores are those of the n-th point of a grid."""
    grid = itertools.cycle(itertools.product(range(1, 11), repeat=2))
    roles = server.reply

    def reply(body):
        if "From which perspectives" in body["messages"][-1]["content"]:
            return roles(body)
        first, second = next(grid)
        return f"Evidence.\nScore of Assistant 1: {first}\nScore of Assistant 2: {second}"

    server.reply = reply
    return server


def run(server, pairs, out, *more):
    return (
        *("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", out),
        *("--structured", "off", "--backoff", 0.01, *more),
    )


def scores_of(folder):
    return [
        [tuple(item["scores"]) if item["order"] == "12" else tuple(item["scores"][::-1]) for item in layer]
        for record in records(folder)
        for layer in record["layers"]
    ]


@pytest.mark.parametrize(
    ("flags", "reviews"),
    [
        (("--preset", "single", "--width", 5, "--temperatures", 1), 5),
        (("--roles", *["Accuracy"] * 5, "--depth", 1), 10),
        (("--roles", *["Accuracy"] * 3, "--depth", 2), 6),
        (("--preset", "faireval"), 6),
        (("--preset", "faireval", "--width", 2), 12),
        (("--preset", "panel", "--width", 3, "--temperatures", 1), 6),
    ],
)
@pytest.mark.parametrize("cache", [(), ("--no-cache",)])
def test_neurons_with_one_prompt_are_as_many_draws(judge, numbered, tmp_path, flags, reviews, cache):
    pairs = write_pairs(tmp_path / "p.jsonl", 1)
    assert judge(*run(numbered, pairs, "out", *flags, *cache)).returncode == 0
    for layer in scores_of(tmp_path / "out"):
        assert len(layer) == reviews == len(set(layer))
    assert len(numbered.requests) == sum(map(len, scores_of(tmp_path / "out")))


def test_judges_that_are_one_model_are_as_many_draws(judge, numbered, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 2)
    words = run(numbered, pairs, "out", "--preset", "panel", "--temperatures", 1)
    at = words.index("openai:m")
    assert judge(*words[:at], *["openai:m"] * 3, *words[at + 1 :]).returncode == 0
    assert len(numbered.requests) == 12 and all(len(set(layer)) == 6 for layer in scores_of(tmp_path / "out"))


def test_the_same_network_draws_the_same_again_and_a_wider_one_goes_on(judge, numbered, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    words = ("--preset", "single", "--temperatures", 1)
    assert judge(*run(numbered, pairs, "out", *words, "--width", 3)).returncode == 0
    assert len(numbered.requests) == 9
    again = judge(*run(numbered, pairs, "again", *words, "--width", 3, "--concurrency", 1))
    assert again.returncode == 0 and len(numbered.requests) == 9
    first, second = ({record["id"]: record["verdict"] for record in records(tmp_path / n)} for n in ("out", "again"))
    assert first == second
    assert judge(*run(numbered, pairs, "wider", *words, "--width", 5)).returncode == 0
    assert len(numbered.requests) == 15


def test_what_differs_is_asked_under_the_key_of_before_there_were_draws(tmp_path, judge, numbered):
    """A sweep shares the first layers of its points, and old caches keep their hits."""
    pairs = write_pairs(tmp_path / "p.jsonl", 2, human=1)
    words = ("sweep", *run(numbered, pairs, "out")[1:], "--widths", 1, 2, "--depths", 1, 2)
    done = judge(*words)
    assert done.returncode == 0, done.stderr
    # Width 2: 1 + 2 x 2 x 2 calls a sample; width 1: its first layer is there already, its second sees less.
    assert len(numbered.requests) == 2 * (9 + 2)
    assert {call.draw for call in FakeJudgeCalls(depth=2).calls} == {0}


class FakeJudgeCalls:
    def __init__(self, **shape):
        names = [{"name": name, "focus": ""} for name in ("a", "b", "c")]
        review = "Score of Assistant 1: 8\nScore of Assistant 2: 6"
        judge = FakeJudge(lambda call: json.dumps({"roles": names}) if call.place.task == "roles" else review)
        judged(Network(**shape), judge)
        self.calls = judge.calls


def test_a_seed_does_not_make_copies_of_draws(judge, numbered, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 1)
    assert judge(*run(numbered, pairs, "out", "--preset", "single", "--width", 3, "--seed", 7)).returncode == 0
    assert len({request["seed"] for request in numbered.requests}) == 3


@pytest.mark.parametrize("width", [3, 6, 8])
def test_a_width_is_so_many_neurons_or_unscored_with_the_reason(judge, numbered, tmp_path, width):
    numbered.reply = lambda body: "- Wit\n- Rhythm" if "From which" in str(body["messages"]) else REVIEW
    pairs = write_pairs(tmp_path / "p.jsonl", 2)
    done = judge(*run(numbered, pairs, "out", "--width", width, "--depth", 1))
    for record in records(tmp_path / "out"):
        if width <= 6:  # two that the judge names and four of the family's own
            assert len(record["roles"]) == width and len(record["layers"][0]) == 2 * width
        else:
            assert record["verdict"]["winner"] is None and record["layers"] == []
            assert f"where {width} are asked for" in record["verdict"]["reason"]
    assert done.returncode == (0 if width <= 6 else 1)


REVIEW = "Score of Assistant 1: 8\nScore of Assistant 2: 6"


def test_fixed_roles_are_all_asked():
    with pytest.raises(ConfigError, match=r"--width 3: there are 2 --roles"):
        Network(roles=("a", "b"), width=3)
