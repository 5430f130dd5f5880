"""What is kept within limits, which path a file has beside others, and what agents are told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from orchestrator.artifacts.model import AWAY, Artifact, Held, NewPiece
from orchestrator.artifacts.rules import (
    UNKNOWN_ATTEMPT,
    Joiner,
    Limits,
    answers_of,
    objection,
    path_beside,
    placed,
    settled,
)

LIMITS = Limits(one=10, run=20, all=100)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TASK, AGENT = UUID(int=1), UUID(int=2)
SHA = "a" * 64


def artifact(name: str, *, stored: int | None = None, created: int = 0, **values: object) -> Artifact:
    """Make an artifact; the times are minutes."""
    stored_at = None if stored is None else NOON + timedelta(minutes=stored)
    made = Artifact(uuid4(), TASK, 1, name, "file", SHA, 5, NOON + timedelta(minutes=created), stored_at, missing=None)
    return replace(made, **values)  # type: ignore[arg-type]


def piece(name: str = "a", *, agent_id: UUID = AGENT, sha256: str = SHA) -> NewPiece:
    return NewPiece(TASK, 1, agent_id, name, "file", sha256, 5, 0, b"hello")


@pytest.mark.parametrize(
    ("size", "held", "in_all", "says"),
    [
        (10, 10, 90, None),
        (0, 20, 100, None),
        (11, 0, 0, "it has 11 bytes, and at most 10 are kept of one file (max_artifact_bytes)"),
        (
            10,
            11,
            0,
            "with its 10 bytes the run would keep 21, and at most 20 are kept of a run (max_run_artifact_bytes)",
        ),
        (10, 0, 91, "the store holds 91 bytes, and with its 10 it would exceed 100 (max_artifacts_bytes)"),
    ],
)
def test_a_file_is_kept_up_to_each_limit_and_not_beyond(size: int, held: int, in_all: int, says: str | None) -> None:
    assert objection(size, held=Held(1, held), held_in_all=in_all, limits=LIMITS) == says


@pytest.mark.parametrize(
    "cuts",
    [
        [(0, 11)],
        [(0, 4), (4, 8), (8, 11)],
        [(0, 6), (4, 8), (5, 11)],
        [(0, 11), (3, 5), (7, 11)],
        [(0, 0), (0, 11)],
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_pieces_make_one_file_however_they_overlap(cuts: list[tuple[int, int]], at_once: int) -> None:
    content = b"hello world"
    pieces = [(start, content[start:end]) for start, end in cuts]
    joiner = Joiner()

    parts = [joiner.join(pieces[at : at + at_once]) for at in range(0, len(pieces), at_once)]

    assert b"".join(parts) == content


def test_a_file_lies_under_its_name_and_a_second_one_of_that_name_in_a_folder_of_its_own() -> None:
    first, second, other = artifact("build.log", stored=1), artifact("build.log", stored=2), artifact("a/b", stored=3)

    paths = {one.artifact_id: one.path for one in placed([second, other, first])}

    assert paths == {
        first.artifact_id: "build.log",
        second.artifact_id: f"{second.artifact_id}/build.log",
        other.artifact_id: "a/b",
    }


@pytest.mark.parametrize("names", list(permutations(["a", "a/b", "a/b/c", "a/c"])), ids=str)
def test_no_path_is_a_file_and_a_folder_at_once(names: tuple[str, ...]) -> None:
    found = placed([artifact(name, stored=minute) for minute, name in enumerate(names)])

    paths = [one.path for one in found]

    assert found[0].path == found[0].name
    assert len(set(paths)) == len(paths)
    assert not any(other.startswith(f"{path}/") for path in paths for other in paths)


def test_what_is_stored_later_changes_no_path() -> None:
    names = ["log", "log", "a/b", "a", "log", "a/b", "x"]
    stored: list[Artifact] = []
    paths: dict[UUID, str] = {}

    for minute, name in enumerate(names):
        new = artifact(name, stored=minute)
        paths[new.artifact_id] = path_beside(stored, new)
        stored.append(new)

    assert {one.artifact_id: one.path for one in placed(stored)} == paths


def test_a_file_that_is_still_to_come_takes_no_path_from_one_that_is_there() -> None:
    early, there = artifact("log", created=1), artifact("log", created=2, stored=5)

    paths = [one.path for one in placed([early, there])]

    assert paths == [f"{early.artifact_id}/log", "log"]


def test_agents_are_told_of_what_is_settled_and_of_nothing_else() -> None:
    known = {
        one.key: one
        for one in (
            artifact("stored", stored=1),
            artifact("open"),
            artifact("away", missing=f"{AWAY}: gone"),
            artifact("missing", missing="too large"),
            artifact("other", stored=1),
        )
    }
    pieces = [piece(name) for name in ("stored", "open", "away", "missing", "many")]
    pieces += [piece("other", sha256="b" * 64), piece("stored", agent_id=UUID(int=9))]
    refused = {(TASK, 1, "many"): "too many"}

    answers = answers_of(settled(pieces, {(TASK, 1, AGENT)}, known, refused))

    said = {agent_id: (order.task_id, order.attempt, order.names, order.refused) for agent_id, order in answers}
    assert said == {
        AGENT: (
            TASK,
            1,
            ["stored"],
            {"missing": "too large", "many": "too many", "other": "another file was kept under this name before"},
        ),
        UUID(int=9): (TASK, 1, [], {"stored": UNKNOWN_ATTEMPT}),
    }
