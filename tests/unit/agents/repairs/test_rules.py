"""The decisions of a repair, as pure functions of its profile, its diff and its state."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agents.repairs.rules import (
    Part,
    Restore,
    Standing,
    back_as_before,
    default_image,
    ending_of,
    env_files_in,
    images_in,
    is_steady,
    judge,
    named,
    outside,
    pause_before,
    restore_of,
    secret_values,
    shown_diff,
    stage_resumed,
    steps_of,
    undo_of,
    variables_in,
    why_not_resumed,
    within,
)
from agents.repairs.state import Container, Content, End, Stage, Touched, Unit
from common.compose import ComposeRepairParameters, RepairStep, ServiceProfile
from common.messages import ResultStatus, StepReport, StepStatus

TASK = UUID(int=5)
OLD, NEW = "sha256:old", "sha256:new"
PROFILE = ServiceProfile(project="shop", workspace="/srv/shop", allowlist=["src/**"])


def make_unit(**changes: Any) -> Unit:
    given = {
        "run_id": UUID(int=1),
        "task_id": TASK,
        "attempt": 1,
        "service": "web",
        "profile": PROFILE,
        "begun_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Unit.model_validate({**given, **changes})


def make_container(**changes: Any) -> Container:
    return Container.model_validate({"id": "c1", "name": "shop_web_1", "image": NEW, "status": "running", **changes})


def maybe(digest: str | None) -> Content | None:
    return None if digest is None else content(digest)


def content(digest: str, mode: int = 0o644) -> Content:
    return Content(sha256=digest, mode=mode, uid=0, gid=0)


def parameters(*steps: RepairStep, **changes: Any) -> ComposeRepairParameters:
    given = {"run_id": UUID(int=1), "service": "web", "profile": PROFILE, "steps": steps, "resumes": TASK}
    return ComposeRepairParameters.model_validate({**given, **changes})


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        (Stage.NEW, ()),
        (Stage.PATCHING, (Part.WORKTREE,)),
        (Stage.PATCHED, (Part.WORKTREE,)),
        (Stage.BUILDING, (Part.WORKTREE,)),
        (Stage.BUILT, (Part.WORKTREE,)),
        (Stage.FILES, (Part.FILES, Part.WORKTREE)),
        (Stage.IMAGE, (Part.FILES, Part.IMAGE, Part.WORKTREE)),
        (Stage.CONTAINER, tuple(Part)),
        (Stage.RESTARTED, tuple(Part)),
    ],
)
def test_only_what_was_done_is_undone(stage: Stage, parts: tuple[Part, ...]) -> None:
    assert undo_of(stage) == parts


def test_every_stage_is_decided() -> None:
    assert [len(undo_of(stage)) for stage in Stage] == sorted(len(undo_of(stage)) for stage in Stage)


@pytest.mark.parametrize(
    ("now", "before", "after", "restore"),
    [
        ("new", "old", "new", Restore.WRITE),
        ("old", "old", "new", Restore.NOTHING),
        ("other", "old", "new", Restore.LEAVE),
        (None, "old", "new", Restore.LEAVE),
        ("new", None, "new", Restore.REMOVE),
        (None, None, "new", Restore.NOTHING),
        ("other", None, "new", Restore.LEAVE),
        (None, "old", None, Restore.WRITE),
        ("old", "old", None, Restore.NOTHING),
        ("other", "old", None, Restore.LEAVE),
    ],
)
def test_a_file_is_restored_only_when_it_is_what_the_repair_made_it(
    now: str | None, before: str | None, after: str | None, restore: Restore
) -> None:
    touched = Touched(path="a", before=maybe(before), after=maybe(after))

    assert restore_of(maybe(now), touched) is restore


def test_a_file_whose_permissions_somebody_changed_is_left() -> None:
    touched = Touched(path="a", before=content("old"), after=content("new"))

    assert restore_of(content("new", 0o600), touched) is Restore.LEAVE


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, Standing.GOOD),
        ({"health": "healthy"}, Standing.GOOD),
        ({"health": "starting"}, Standing.WAIT),
        ({"health": "unhealthy"}, Standing.WAIT),
        ({"status": "created"}, Standing.WAIT),
        ({"status": "restarting"}, Standing.WAIT),
        ({"status": "paused"}, Standing.WAIT),
        ({"status": "exited"}, Standing.BAD),
        ({"status": "exited", "restart_policy": "always"}, Standing.WAIT),
        ({"status": "exited", "restart_policy": "unless-stopped"}, Standing.WAIT),
        ({"status": "exited", "restart_policy": "on-failure", "exit_code": 1}, Standing.WAIT),
        ({"status": "exited", "restart_policy": "on-failure"}, Standing.BAD),
        ({"status": "dead", "restart_policy": "always"}, Standing.BAD),
        ({"image": OLD}, Standing.BAD),
    ],
)
def test_how_a_container_stands(changes: dict[str, Any], standing: Standing) -> None:
    assert judge([make_container(**changes)], image=NEW).standing is standing


def test_the_worst_container_counts() -> None:
    good, waits, bad = make_container(), make_container(status="created"), make_container(status="exited")

    assert judge([good, waits], image=None).standing is Standing.WAIT
    assert judge([good, waits, bad], image=None).standing is Standing.BAD
    assert judge([], image=None).standing is Standing.WAIT


def test_people_are_shown_a_diff_by_its_lines_whatever_is_in_it() -> None:
    def hidden(text: str) -> str:
        return text.replace("two\nlines", "[redacted]")

    assert shown_diff(b"+a\n+two\nlines\r\n+\xff\0\n", hidden) == ["+a", "+[redacted]\r", "+\ufffd\ufffd"]
    assert shown_diff(b"+a\n\n", str) == ["+a", ""]


def test_a_result_names_as_many_files_as_it_has_room_for() -> None:
    files = [Touched(path=f"{number:04}" + "x" * 4000, before=None, after=None) for number in range(100)]

    result = make_unit(end=End.VERIFIED, files=files).result

    assert result is not None
    assert [name[:4] for name in result.files] == ["0000", "0001"]


def test_a_container_that_began_anew_is_not_steady() -> None:
    one = make_container(started_at="10:00")

    assert is_steady([one], [one])
    assert not is_steady([one], [make_container(started_at="10:01")])
    assert not is_steady([one], [make_container(started_at="10:00", restarts=1)])
    assert not is_steady([one], [])


def test_looks_come_ever_more_rarely() -> None:
    assert [pause_before(number, 2.0) for number in (0, 1, 2, 3, 4, 1000)] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("before", "now", "standing"),
    [
        ([make_container(image=OLD)], [make_container(image=OLD, id="c2")], Standing.GOOD),
        ([make_container(image=OLD)], [make_container(image=NEW)], Standing.WAIT),
        ([make_container(image=OLD)], [make_container(image=OLD, status="exited")], Standing.WAIT),
        ([make_container(image=OLD, status="exited")], [make_container(image=OLD, status="created")], Standing.GOOD),
        ([make_container(image=OLD)], [], Standing.WAIT),
        ([make_container(image=OLD)] * 2, [make_container(image=OLD)], Standing.WAIT),
        ([make_container(image=OLD)], [make_container(image=OLD)] * 2, Standing.WAIT),
        ([], [], Standing.GOOD),
        ([], [make_container()], Standing.WAIT),
    ],
)
def test_when_a_service_is_as_before(before: list[Container], now: list[Container], standing: Standing) -> None:
    unit = make_unit(containers=before, image_before=OLD if before else None)

    assert back_as_before(unit, now).standing is standing


class TestResumed:
    def test_it_needs_the_task_that_it_names(self) -> None:
        assert "keeps nothing of the task" in (why_not_resumed(parameters("build"), None) or "")
        other = make_unit(task_id=UUID(int=6), stage=Stage.BUILT, end=End.ROLLED_BACK)
        assert "keeps nothing of the task" in (why_not_resumed(parameters("build"), other) or "")

    def test_it_needs_the_same_place(self) -> None:
        elsewhere = PROFILE.model_copy(update={"workspace": "/srv/other"})
        known = make_unit(stage=Stage.BUILT, end=End.ROLLED_BACK, profile=elsewhere)

        assert "another workspace" in (why_not_resumed(parameters("build"), known) or "")

    @pytest.mark.parametrize(
        ("steps", "stage", "is_possible"),
        [
            (("build", "restart", "verify"), Stage.PATCHED, True),
            (("build", "restart", "verify"), Stage.BUILDING, True),
            (("build", "restart", "verify"), Stage.PATCHING, False),
            (("restart", "verify"), Stage.BUILT, True),
            (("restart", "verify"), Stage.RESTARTED, True),
            (("restart", "verify"), Stage.BUILDING, False),
            (("verify",), Stage.RESTARTED, True),
            (("verify",), Stage.PATCHED, False),
        ],
    )
    def test_it_needs_what_the_earlier_steps_have_made(
        self, steps: tuple[RepairStep, ...], stage: Stage, is_possible: bool
    ) -> None:
        known = make_unit(stage=stage, end=End.ROLLED_BACK)

        assert (why_not_resumed(parameters(*steps), known) is None) is is_possible

    def test_it_needs_the_diff_that_was_approved(self) -> None:
        known = make_unit(stage=Stage.BUILT, end=End.PREPARED, diff_sha256="a" * 64)

        assert why_not_resumed(parameters("restart", "verify", diff_sha256="a" * 64), known) is None
        assert "another one" in (why_not_resumed(parameters("restart", "verify", diff_sha256="b" * 64), known) or "")

    def test_it_needs_the_diff_that_people_were_shown(self) -> None:
        known = make_unit(stage=Stage.BUILT, end=End.PREPARED, diff_sha256="a" * 64, shown=["-old", "+[redacted]"])
        asked = {"diff_sha256": "a" * 64, "diff": ["-old", "+[redacted]"]}

        assert why_not_resumed(parameters("restart", "verify", **asked), known) is None
        for diff in (["-old"], ["-old", "+new"], ["-old", "+[redacted]", ""]):
            reason = why_not_resumed(parameters("restart", "verify", **{**asked, "diff": diff}), known)
            assert "people were shown" in (reason or "")

    def test_what_was_taken_back_is_restarted_before_it_is_verified(self) -> None:
        known = make_unit(stage=Stage.RESTARTED, end=End.ROLLED_BACK)

        assert steps_of(parameters("verify"), known) == ["restart", "verify"]
        assert steps_of(parameters("restart", "verify"), known) == ["restart", "verify"]

    def test_how_far_it_has_come(self) -> None:
        assert [stage_resumed(step) for step in ("analyze", "patch", "build", "restart", "verify")] == [
            Stage.NEW,
            Stage.NEW,
            Stage.PATCHED,
            Stage.BUILT,
            Stage.BUILT,
        ]


@pytest.mark.parametrize(
    ("path", "is_allowed"),
    [
        ("src/main.py", True),
        ("src/deep/er/main.py", True),
        ("src", False),
        ("srcs/main.py", False),
        ("Dockerfile", False),
        ("other/src/main.py", False),
        ("../src/main.py", False),
        ("src/../src/main.py", False),
    ],
)
def test_what_the_allow_list_lets_a_repair_change(path: str, is_allowed: bool) -> None:
    assert outside([path], PROFILE) == ([] if is_allowed else [path])


def test_of_many_paths_some_are_named() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_which_variables_are_secret() -> None:
    variables = {
        "DB_PASSWORD": "one",
        "API_TOKEN": "two",
        "SSH_KEY": "three",
        "apiKey2": "four",
        "KEYBOARD": "no",
        "AUTHOR": "no",
        "PATH": "no",
        "AUTH": "five",
        "AWS_CREDENTIALS": "six",
        "MY_SECRETS_FILE": "seven",
    }

    assert secret_values(variables) == ["one", "two", "three", "four", "five", "six", "seven"]


def test_the_variables_of_an_env_file() -> None:
    text = "# PASSWORD=comment\nA_TOKEN=abc\nexport B_KEY = \"quo ted\"\nC='single'\nnothing\nD=\n"

    assert variables_in(text) == {"A_TOKEN": "abc", "B_KEY": "quo ted", "C": "single", "D": ""}


PRINTED = """\
networks:
  web:
    image: not-this
services:
  db:
    image: database:2
  'on':
    image: quoted-name
  mail:
    build: {}
  web:
    build:
      context: /srv/shop
      image: nor-this
    environment:
      image: nor-that
    image: 'shop/web:1.0'
    ports:
    - published: 80
version: '3.7'
"""


def test_the_services_in_what_compose_prints_with_their_images() -> None:
    assert images_in(PRINTED) == {"db": "database:2", "on": "quoted-name", "mail": None, "web": "shop/web:1.0"}


def test_paths_within_places() -> None:
    assert within(["a", "ab", "a/b", "c/a", "d"], ["a", "d", "c/a/b"]) == ["a", "a/b", "d"]


def test_what_compose_calls_an_image_that_has_no_name() -> None:
    assert default_image("shop", "web", compose_major=1) == "shop_web"
    assert default_image("shop", "web", compose_major=2) == "shop-web"


class TestEnding:
    def test_of_a_repair_that_worked(self) -> None:
        assert ending_of(make_unit(end=End.VERIFIED)) == (ResultStatus.COMPLETED, None)
        assert ending_of(make_unit(end=End.PREPARED)) == (ResultStatus.COMPLETED, None)

    def test_of_one_that_was_taken_back(self) -> None:
        undone = StepReport(position=5, name="rollback", status=StepStatus.SUCCEEDED, message="All is as before.")
        unit = make_unit(end=End.ROLLED_BACK, cause="It did not answer.", reports=[undone])

        assert ending_of(unit) == (ResultStatus.FAILED, "It did not answer. All is as before.")

    def test_of_one_that_has_no_end_yet(self) -> None:
        assert ending_of(make_unit(cause="It did not answer.")) == (
            ResultStatus.FAILED,
            "It did not answer. This host takes the repair back by itself.",
        )


def test_what_a_verified_repair_leaves_adds_to_what_was_left() -> None:
    touched = [
        Touched(path="a", before=content("old"), after=content("new")),
        Touched(path="b", before=content("old"), after=None),
    ]
    unit = make_unit(files=touched, left={"c": "earlier"})

    assert unit.changed(end=End.VERIFIED).leaves == {"c": "earlier", "a": "new", "b": None}
    assert unit.changed(end=End.ROLLED_BACK).leaves == {"c": "earlier"}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("    env_file: .env.web\n    ports: [x]\n", [".env.web"]),
        ("    env_file: './secrets/web.env' # why\n", ["secrets/web.env"]),
        ("    env_file: [a.env, 'b.env']\n", ["a.env", "b.env"]),
        ("    env_file:\n      - a.env\n      # why\n      - b.env\n    ports:\n      - c.env\n", ["a.env", "b.env"]),
        ("    env_file:\n    - a.env\n", ["a.env"]),
        ("    env_file:\n      - path: a.env\n        required: false\n    image: c\n", ["a.env", "false"]),
        ("    env_file: /etc/web.env\n", []),
        ("    env_file: ../web.env\n", []),
        ("    no_env_file: a.env\n    image: b\n", []),
    ],
)
def test_the_files_of_variables_that_a_compose_file_names(text: str, paths: list[str]) -> None:
    assert env_files_in(text) == paths
