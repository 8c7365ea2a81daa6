"""Clusters against a breadth-first search over random samples."""

from __future__ import annotations

import random

import pytest

from evaluators.statistics.clusters import clusters, keys


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_the_connected_parts_whatever_the_order(seed: int) -> None:
    rng = random.Random(seed)
    samples = [tuple(rng.sample("abcdefghijklmnop", rng.randint(0, 3))) for _ in range(12)]
    names = clusters(samples)

    def reached(start: int) -> set[int]:
        found, edge = {start}, [start]
        while edge:
            here = edge.pop()
            near = {at for at, own in enumerate(samples) if set(own) & set(samples[here])} - found
            found |= near
            edge += near
        return found

    for at in range(len(samples)):
        assert {other for other, name in enumerate(names) if name == names[at]} == reached(at)
    order = rng.sample(range(len(samples)), len(samples))
    again = clusters([samples[at] for at in order])
    assert {at: name for at, name in zip(order, again, strict=True) if samples[at]} == {
        at: name for at, name in enumerate(names) if samples[at]
    }


def test_a_query_is_its_own_cluster_and_dialogues_share_openings_or_whole_texts() -> None:
    assert keys("Why?", ("user: x\nassistant: y", None)) == ("Why?",)
    assert keys("Question 1:\nWhy?\n\nQuestion 2:\nAnd how?", ("a", "b")) == ("Why?",)
    one = keys("", ("user: Hello there!\n\nassistant: Hi.", "user:  Hello there!\nassistant: Good day."))
    assert "user: Hello there!" in one and len(one) == 3
    assert set(one) & set(keys(" ", ("cut off", "User: Hello there!\nassistant: Hi."))) == {"user: Hello there!"}
    assert set(keys("", ("cut off", "}"))) & set(keys("", ("}", "other")))
    assert not set(keys("", ("a", "b"))) & set(keys("", ("c", "d")))
    assert keys("", ("", " \n")) == ()
    assert len(set(clusters([(), (), ("q",), ("q",)]))) == 3
