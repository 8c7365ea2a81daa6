"""What environment.json tells of a run's sessions: where it came from, and which settings held from which step."""

from __future__ import annotations

from typing import Any


def history(environment: dict[str, Any]) -> list[tuple[int, str]]:
    """What a run was not from its first step on, as (step, what happened after it): a branch of another run, settings
    that changed. Sessions of a course that it left do not count."""
    told: list[tuple[int, str]] = []
    sessions = environment.get("resumed", [])
    for session in sessions if isinstance(sessions, list) else []:
        if not isinstance(session, dict) or not isinstance(step := session.get("step"), int):
            continue  # of an older depthlab, which kept neither
        told = [entry for entry in told if entry[0] < step or entry[1].startswith("branch")]
        if session.get("branch"):
            told.append((step, f"branch of {session['branch']}"))
        changed = session.get("changed")
        told += [(step, str(line)) for line in changed] if isinstance(changed, list) else []
    return told
