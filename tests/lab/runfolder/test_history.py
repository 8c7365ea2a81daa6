from __future__ import annotations

from typing import Any

import pytest

from lab.runfolder.history import history


def session(step: Any, *changed: str, branch: str | None = None) -> dict[str, Any]:
    return {"step": step, "changed": list(changed), "branch": branch}


def test_a_course_that_was_left_does_not_count_and_a_branch_stays_one() -> None:
    sessions = [
        session(300, "a: 1 -> 2", branch="runs/a at step 300"),
        session(400, "b: 1 -> 2"),
        session(500, "c: 1 -> 2"),
        session(400),
        session(450, "d: 1 -> 2"),
    ]
    assert history({"resumed": sessions}) == [
        (300, "branch of runs/a at step 300"),
        (300, "a: 1 -> 2"),
        (450, "d: 1 -> 2"),
    ]
    assert history({"resumed": sessions[:3]})[-2:] == [(400, "b: 1 -> 2"), (500, "c: 1 -> 2")]


@pytest.mark.parametrize(
    "resumed", [None, 3, {}, [1], [{"from": "latest"}], [session("3", "a")], [{"step": 3, "changed": None}]]
)
def test_sessions_of_an_older_depthlab_and_damaged_ones_say_nothing(resumed: Any) -> None:
    assert history({"resumed": resumed}) == []
