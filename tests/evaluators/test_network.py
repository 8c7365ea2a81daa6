"""Who is asked what: counts of calls, what each neuron is shown, and how scores and failures become a verdict."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from evaluators.aggregation import AGGREGATIONS, aggregate
from evaluators.errors import ConfigError
from evaluators.messages import Call
from evaluators.network import Network
from evaluators.presets import architectures
from evaluators.samples import Pair
from evaluators.values import Failure, Review, Role
from tests.evaluators.conftest import records, write_pairs
from tests.evaluators.fakes import PAIR, FakeJudge, judged
from tests.evaluators.vendors import prompt_of, refusal

ROLE_NAMES = [
    "Accuracy, completeness",
    "Price in $ & more",
    "Use of {braces} {{and}} {% more %}",
    "two\nlines",
    "plain",
]


def marked(call: Call) -> str:
    """A reply whose evidence says where it was written, and whose scores are all different."""
    place = call.place
    if place.task == "roles":
        return json.dumps({"roles": [{"name": name, "focus": ""} for name in ROLE_NAMES]})
    number = place.neuron + 10 * place.layer + (0.5 if place.order == "21" else 0)
    return (
        f"Evaluation evidence: EV-{place.layer}-{place.neuron}-{place.order}-{place.index}-END\n"
        f"Score of Assistant 1: {1 + number / 10:.2f}\nScore of Assistant 2: {9 - number / 10:.2f}"
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 1, 3])
@pytest.mark.parametrize("reviews", [1, 2])
def test_calls_are_exactly_1_plus_2_n_L(depth, width, reviews):
    judge = FakeJudge(marked)
    network = Network(depth=depth, width=width, reviews=reviews)
    judgement = judged(network, judge)
    n = len(ROLE_NAMES) if width is None else width
    assert len(judgement.roles) == n
    assert len(judge.calls) == 1 + 2 * n * depth * reviews == network.calls(n)
    places = {(c.place.layer, c.place.neuron, c.place.order, c.place.index) for c in judge.calls[1:]}
    assert places == set(itertools.product(range(1, depth + 1), range(1, n + 1), ("12", "21"), range(reviews)))
    assert judgement.verdict.scored == 2 * n * depth * reviews


@pytest.mark.parametrize("connection", ["full", "window:1", "window:2", "window:3"])
def test_every_neuron_sees_exactly_the_reviews_of_its_connection(connection):
    judge = FakeJudge(marked)
    judged(Network(depth=3, connection=connection, reviews=2), judge)
    reach = {"full": 99}.get(connection) or int(connection[-1]) - 1
    for call in judge.calls[1:]:
        place, prompt = call.place, call.messages[-1].content
        shown = re.findall(r"EV-(\d)-(\d)-(12|21)-(\d)-END", prompt)
        expected = [
            (str(place.layer - 1), str(other), order, str(index))
            for other in range(1, 6)
            if abs(other - place.neuron) <= reach and place.layer > 1
            for order in ("12", "21")
            for index in (0, 1)
        ]
        assert shown == expected
        # Its own reviews are told apart from those of others.
        assert prompt.count("Your own review,") == (4 if place.layer > 1 else 0)


def test_reviews_are_rendered_for_the_readers_order_from_fields():
    judge = FakeJudge(marked)
    judged(Network(depth=2, connection="window:1"), judge)
    for call in (call for call in judge.calls if call.place.layer == 2):
        prompt = call.messages[-1].content
        first, second = ("the first response", "the second response")
        presented = (first, second) if call.place.order == "12" else (second, first)
        assert prompt.index(presented[0]) < prompt.index(presented[1])
        reviews = re.findall(
            r"round 1, from the perspective of .*?(\(written with .*?\))?:\n.*?EV-1-(\d)-(12|21)-0-END.*?"
            r"Its score of Assistant 1: (\S+)\nIts score of Assistant 2: (\S+)",
            prompt,
            re.DOTALL,
        )
        assert len(reviews) == 2
        for note, neuron, order, score1, score2 in reviews:
            number = int(neuron) + 10 + (0.5 if order == "21" else 0)
            written = [1 + number / 10, 9 - number / 10]  # of the response shown first, second, when it was written
            in_my_order = written if order == call.place.order else written[::-1]
            assert [float(score1), float(score2)] == pytest.approx(in_my_order, abs=0.005)
            assert bool(note) == (order != call.place.order)


def test_nothing_in_a_text_is_replaced_when_orders_are_turned():
    evidence = "Assistant 1 and 2 tie; Assistants 1 and 2; assistant 1; ***** Assistant 2"
    judge = FakeJudge(lambda call: f"{evidence}\nScore of Assistant 1: 8\nScore of Assistant 2: 6")
    judgement = judged(Network(depth=2, roles=("one",)), judge)
    assert all(item.evidence == evidence for layer in judgement.layers for item in layer)
    for call in judge.calls:
        assert call.messages[-1].content.count(evidence) == (2 if call.place.layer == 2 else 0)


def test_roles_of_any_name_reach_their_neurons():
    judge = FakeJudge(marked)
    judgement = judged(Network(depth=1), judge)
    names = [" ".join(name.split()) for name in ROLE_NAMES]
    assert [role.name for role in judgement.roles] == names
    for call in judge.calls[1:]:
        assert _view(call) == names[call.place.neuron - 1]
    fixed = FakeJudge(marked)
    judged(Network(depth=1, roles=tuple(ROLE_NAMES)), fixed)
    assert len(fixed.calls) == 10 and _view(fixed.calls[4]) == ROLE_NAMES[2]


def _view(call: Call) -> str:
    line = r"angle of view: \[start of perspective (\w{12})\] (.*) \[end of perspective \1\]\n"
    return re.search(line, call.messages[-1].content)[2]


def test_too_few_roles_are_filled_up_and_too_many_cut():
    judgement = judged(Network(depth=1, max_roles=2), FakeJudge(marked))
    assert [role.name for role in judgement.roles] == ROLE_NAMES[:2]
    judge = FakeJudge(lambda call: "I see none." if call.place.task == "roles" else marked(call))
    judgement = judged(Network(depth=1, min_roles=3), judge, reasks=1)
    assert [role.name for role in judgement.roles] == ["Accuracy", "Relevance", "Completeness"]
    assert all(role.standing for role in judgement.roles) and len(judgement.roles_calls) == 2


def test_one_neuron_alone_still_sees_its_own_reviews():
    judge = FakeJudge(marked)
    judged(Network(depth=2, width=1, connection="window:2"), judge)
    last = judge.calls[-1].messages[-1].content
    assert "EV-1-1-12-0-END" in last and "EV-1-1-21-0-END" in last and "{" not in last.split("angle of view")[0][-200:]


def test_reference_perspectives_grow_with_the_rounds():
    network = architectures.get("widedeep-reference", flag="")(1)
    judge = FakeJudge(marked)
    judged(Network(**{**vars(network), "depth": 3, "roles": ("A", "B", "C", "D", "E"), "max_roles": 8}), judge)
    views = {(call.place.layer, call.place.neuron): _view(call) for call in judge.calls}
    assert views[1, 1] == "A" and views[2, 1] == "A; B" and views[2, 3] == "B; C; D" and views[3, 1] == "A; B; C"


def test_temperatures_by_layer_and_judges_by_neuron_or_layer():
    one, two = FakeJudge(marked, "one"), FakeJudge(marked, "two")
    network = Network(depth=3, width=4, temperatures=(1.0, 0.5))
    judged(network, one, two)
    assert {call.place.neuron for call in one.calls[1:]} == {1, 3} and {c.place.neuron for c in two.calls} == {2, 4}
    assert {(c.place.layer, c.sampling.temperature) for c in two.calls} == {(1, 1.0), (2, 0.5), (3, 0.5)}
    one.calls.clear(), two.calls.clear()
    judged(network, one, two, assign="layers")
    assert {call.place.layer for call in one.calls} == {0, 1} and {call.place.layer for call in two.calls} == {2, 3}


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_swaps_its_verdict_with_the_responses(name):
    def by_length(call: Call) -> str:
        """Longer is better, whatever stands first."""
        if call.place.task == "roles":
            return "- A\n- B\n- C"
        pair = call.place.pair
        lengths = {"12": (pair.response1, pair.response2), "21": (pair.response2, pair.response1)}[call.place.order]
        first, second = (min(10, max(1, len(text or "") / 4)) for text in lengths)
        return f"Score of Assistant 1: {first}\nScore of Assistant 2: {second}"

    network = architectures.get(name, flag="")(2)
    for pair, winner in (
        (PAIR, 2),
        (Pair("p", "q", "longer response", "short"), 1),
        (Pair("p", "q", "same", "same"), 0),
    ):
        turned = Pair(pair.id, pair.query, pair.response2 or "", pair.response1)
        found = [judged(network, FakeJudge(by_length), FakeJudge(by_length), pair=p).verdict for p in (pair, turned)]
        assert [verdict.winner for verdict in found] == [winner, {1: 2, 2: 1, 0: 0}[winner]]
        assert found[0].margin == pytest.approx(-(found[1].margin or 0))


@pytest.mark.parametrize("name", architectures.names())
def test_in_every_architecture_failures_stay_unscored(name):
    network = architectures.get(name, flag="")(1)
    judge = FakeJudge(lambda call: "- A\n- B" if call.place.task == "roles" else "I would rather not say.")
    judgement = judged(network, judge, reasks=0)
    assert judgement.verdict.winner is None and judgement.verdict.margin is None and judgement.verdict.scores is None
    assert judgement.verdict.scored == 0 and judgement.verdict.unscored > 0
    assert all(isinstance(item, Failure) and item.kind == "unparsed" for layer in judgement.layers for item in layer)
    assert "no review was scored" in (judgement.verdict.reason or "")


def test_an_unreadable_reply_is_asked_again_with_the_reason_and_only_so_often():
    replies = iter(["What a question!", "Score of Assistant 1: 80\nScore of Assistant 2: 6", "never reached"])
    judge = FakeJudge(lambda call: next(replies))
    judgement = judged(Network(depth=1, roles=(), both_orders=False), judge, reasks=1)
    (failure,) = judgement.layers[0]
    assert isinstance(failure, Failure) and "80 is not between 1 and 10" in failure.reason
    assert len(judge.calls) == 2 == len(failure.calls)
    assert [message.role for message in judge.calls[1].messages] == ["system", "user", "assistant", "user"]
    assert "it holds no score" in judge.calls[1].messages[-1].content
    better = iter(["What a question!", "Score of Assistant 1: 8\nScore of Assistant 2: 6"])
    judgement = judged(Network(depth=1, roles=(), both_orders=False), FakeJudge(lambda call: next(better)))
    assert judgement.verdict.winner == 1 and len(judgement.layers[0][0].calls) == 2


def review(layer: int, order: str, *scores: float, confidence: float | None = None) -> Review:
    return Review(layer, 1, order, 0, "", scores, "", confidence)  # type: ignore[arg-type]


def failure(layer: int, order: str) -> Failure:
    return Failure(layer, 1, order, 0, "call", "broken")  # type: ignore[arg-type]


LAYERS = [
    [review(1, "12", 8, 4, confidence=10), review(1, "21", 5, 5, confidence=5)],
    [review(2, "12", 6, 7, confidence=10), review(2, "21", 2, 9, confidence=1)],
]


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("mean-all", ((8 + 5 + 6 + 2) / 4, (4 + 5 + 7 + 9) / 4)),
        ("mean-last", ((6 + 2) / 2, (7 + 9) / 2)),
        ("vote-all", (1.5 / 4, 2.5 / 4)),
        ("vote-last", (0, 1)),
        # Each order's mean, weighted, and then both orders alike.
        ("confidence-all", (((80 + 60) / 20 + (25 + 2) / 6) / 2, ((40 + 70) / 20 + (25 + 9) / 6) / 2)),
        ("confidence-last", ((6 + 2) / 2, (7 + 9) / 2)),
    ],
)
def test_aggregations_by_hand(name, scores):
    verdict = aggregate(LAYERS, name, 0)
    assert verdict.scores == pytest.approx(scores)
    assert verdict.winner == (1 if scores[0] > scores[1] else 2)
    assert verdict.unscored == 0
    assert set(AGGREGATIONS) >= {name}


def test_a_failure_takes_no_part_and_brings_no_position_bias_back():
    bias = 2.0  # in favour of the response shown first; the responses are equally good
    first, second = 5 + bias, 5 - bias
    layer = [
        review(1, "12", first, second),
        review(1, "21", second, first),
        review(1, "12", first, second),
        failure(1, "21"),
    ]
    verdict = aggregate([layer], "mean-all", 0)
    assert verdict.winner == 0 and verdict.scores == pytest.approx((5, 5))
    assert (verdict.scored, verdict.unscored) == (3, 1)


@pytest.mark.parametrize("aggregation", ["mean-all", "mean-last", "vote-all", "vote-last", "confidence-all"])
@pytest.mark.parametrize("lost", ["12", "21"])
def test_one_order_alone_gives_no_verdict(aggregation, lost):
    """It would be the judge's position bias; with nothing but failures in an order, the sample is unscored."""
    kept = "21" if lost == "12" else "12"
    layers = [[review(at, kept, 8, 4, confidence=5), failure(at, lost), failure(at, lost)] for at in (1, 2)]
    verdict = aggregate(layers, aggregation, 0)
    assert (verdict.winner, verdict.margin, verdict.scores, verdict.scored) == (None, None, None, 0)
    assert verdict.unscored == (2 if aggregation.endswith("last") else 4)
    assert f"shown response {lost[0]} first" in verdict.reason and "position bias" in verdict.reason
    # What was never asked is not missed.
    assert aggregate([[review(1, kept, 8, 4, confidence=5)]], aggregation, 0).winner == 1


def test_a_sample_with_a_failed_order_is_counted_as_unscored_and_judged_again(judge, server, tmp_path):
    write_pairs(tmp_path / "p.jsonl", 2, human=1)
    is_down = True

    def manner(body, number):
        shown = prompt_of(body)
        turned = "second answer to 0" in shown and shown.index("second answer to 0") < shown.index("first answer to 0")
        return refusal(400, "down") if is_down and turned else None

    server.manner = manner
    words = ("--data", "p.jsonl", "--judge", "openai:m", "--base-url", server.url, "--preset", "faireval", "--no-cache")
    done = judge("run", *words, "--out", "r")
    assert "unscored 1" in done.stdout, done.stdout + done.stderr
    found = {record["id"]: record["verdict"] for record in records(tmp_path / "r")}
    assert found["s0"]["winner"] is None and found["s0"]["scores"] is None and found["s0"]["unscored"] == 3
    assert found["s1"]["winner"] == 0
    is_down = False
    done = judge("run", *words, "--out", "r", "--retry-unscored")
    assert done.returncode == 0, done.stderr
    assert [record["verdict"]["winner"] for record in records(tmp_path / "r")] == [0, 0]


def test_tie_margin_and_its_edge():
    layers = [[review(1, "12", 7.3, 7.0)]]
    assert [aggregate(layers, "mean-all", margin).winner for margin in (0, 0.29, 0.3, 1)] == [1, 1, 0, 0]
    # Three tenths are not 0.3 in binary: equal on paper is a tie.
    thirds = [[review(1, "12", 0.1 + 0.2, 0.3)]]
    assert aggregate(thirds, "mean-all", 0).winner == 0


def test_single_responses_are_graded():
    pair = Pair("p", "q", "the only one", None, reference="the reference")
    judge = FakeJudge(
        lambda call: "- A\n- B" if call.place.task == "roles" else f"Fine.\nScore: {6 + call.place.neuron}"
    )
    judgement = judged(Network(depth=2), judge, pair=pair)
    assert len(judge.calls) == 1 + 2 * 2 and judgement.verdict.scores == pytest.approx((7.5,))
    assert judgement.verdict.winner is None and judgement.verdict.reason is None
    assert all("the reference" in call.messages[-1].content for call in judge.calls)
    assert "Its score: 7" in judge.calls[-1].messages[-1].content


def test_long_texts_are_shortened_alike_in_both_orders_and_marked():
    pair = Pair("p", "q", "a" * 40_000, "b" * 20_000)
    judge = FakeJudge(lambda call: "Score of Assistant 1: 8\nScore of Assistant 2: 6", context=4000)
    judgement = judged(Network(depth=1, roles=()), judge, pair=pair, max_tokens=500)
    for call in judge.calls:
        assert sum(judge.count_tokens(message.content) for message in call.messages) + 500 <= 4000
        assert "characters left out here" in call.messages[-1].content
    kept = [sorted(re.findall("a{20,}|b{20,}", call.messages[-1].content)) for call in judge.calls]
    assert kept[0] == kept[1] and len("".join(kept[0])) > 8000
    assert all(item.shortened > 40_000 for item in judgement.layers[0])
    tiny = judged(Network(depth=1, roles=()), judge, pair=pair, max_tokens=500, context=600)
    assert tiny.verdict.winner is None and "does not fit a context of 600 tokens" in (tiny.verdict.reason or "")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depth": 0}, "--depth 0"),
        ({"connection": "window:0"}, "--connection window:0"),
        ({"connection": "ring"}, "write full, or window:2"),
        ({"aggregation": "median"}, "choose from mean-all"),
        ({"min_roles": 5, "max_roles": 4}, "--max-roles 4"),
        ({"tie_margin": -1.0}, "--tie-margin"),
        ({"temperatures": ()}, "--temperatures"),
        ({"roles": ("a", " ")}, "--roles"),
    ],
)
def test_impossible_networks_are_refused_with_the_flag(settings, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        Network(**settings)


def test_role_text():
    assert Role("Accuracy", "is it right").text == "Accuracy: is it right" and Role("Tone").text == "Tone"
