"""A repair ends verified or rolled back: with real git and real programs, and docker as a program that plays it."""

import asyncio
import hashlib
import json
import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.enclosure import Enclosure, User
from agents.processes.keepers import Keepers
from agents.repairs.state import End
from common.confinement import Confinement
from common.errors import ErrorCode
from common.messages import ResultStatus
from tests.eventually import eventually
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.conftest import MakeWorkshop, Repair
from tests.unit.agents.repairs.workshop import (
    ALL_BUT_ROLLBACK,
    CRASHES,
    FAILS_TO_BUILD,
    FIRST,
    KEY,
    PASSWORD,
    SECOND,
    Told,
    Workshop,
    carry_out,
    diff_adding,
    diff_of,
    git,
    shell,
)


async def test_a_repair_that_works_is_verified_and_touches_nothing_else(workshop: Workshop, repair: Repair) -> None:
    before = workshop.seen()

    done = await repair()

    after = workshop.seen()
    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert done.told.steps == {**dict.fromkeys(ALL_BUT_ROLLBACK, "succeeded"), "rollback": "skipped"}
    assert (workshop.workspace / "app.txt").read_text() == SECOND
    assert after.services["web"] != before.services["web"]
    assert after.names["shop_web:latest"] == after.services["web"][0]
    assert after.database == before.database
    assert workshop.worktrees() == []
    assert workshop.unit.end is End.VERIFIED
    assert (workshop.unit.compose, workshop.unit.compose_major) == (["docker-compose"], 1)

    # Each step leaves its log, and the diff, and the result says what was changed.
    assert {name: kind for name, (kind, _) in done.told.kept.items()} == {
        "analyze.log": "file",
        "patch.diff": "patch_diff",
        "patch.log": "file",
        "build.log": "build_log",
        "restart.log": "file",
        "verify.log": "verify_log",
        "rollback.log": "rollback_log",
    }
    assert done.told.kept["patch.diff"][1].decode().endswith("-sells apples\n+sells pears\n")
    assert b"Successfully built" in done.told.kept["build.log"][1]
    image = "sha256:" + hashlib.sha256(SECOND.encode()).hexdigest()
    assert done.outcome.result == {
        "ending": "verified",
        "diff_sha256": hashlib.sha256(done.told.kept["patch.diff"][1]).hexdigest(),
        "diff": [],
        "files": ["app.txt"],
        "image_before": "sha256:" + hashlib.sha256(FIRST.encode()).hexdigest(),
        "image_after": image,
    }


async def test_a_service_that_does_not_work_is_rolled_back(workshop: Workshop, repair: Repair) -> None:
    before = workshop.seen()

    done = await repair(patch=CRASHES)

    assert done.outcome.status is ResultStatus.FAILED
    assert "ended with exit code 3" in (done.outcome.error_message or "")
    assert done.told.steps == {
        **dict.fromkeys(ALL_BUT_ROLLBACK, "succeeded"),
        "verify": "failed",
        "rollback": "succeeded",
    }
    assert workshop.seen() == before
    assert "rollback.log" in done.told.kept
    assert workshop.worktrees() == []


async def test_a_build_that_fails_restarts_nothing(workshop: Workshop, repair: Repair) -> None:
    before, container = workshop.seen(), workshop.played["containers"]

    done = await repair(patch=FAILS_TO_BUILD)

    assert done.told.steps == {"analyze": "succeeded", "patch": "succeeded", "build": "failed", "rollback": "skipped"}
    assert workshop.seen() == before
    assert workshop.played["containers"] == container
    assert not workshop.has_called("up")
    assert b"non-zero code" in done.told.kept["build.log"][1]


@pytest.mark.parametrize(
    ("way", "script"),
    [
        ("unstaged", "echo changed >> .gitignore"),
        ("staged", "echo changed >> .gitignore; git add .gitignore"),
        ("untracked", "echo new > stray.txt"),
        ("committed", "echo new > stray.txt; git add stray.txt; git -c user.name=a -c user.email=a commit -qm x"),
        ("removed", "rm .gitignore"),
    ],
)
async def test_what_is_outside_the_allow_list_is_refused_in_whatever_way_it_was_changed(
    workshop: Workshop, repair: Repair, way: str, script: str
) -> None:
    before = workshop.seen()

    done = await repair(patch=shell(f"echo sells plums > app.txt; {script}"))

    assert done.told.steps == {"analyze": "succeeded", "patch": "failed", "rollback": "skipped"}, way
    stray = ".gitignore" if ".gitignore" in script else "stray.txt"
    assert done.told.message("patch") == (
        f"The patch changes what is not in the allow list: {stray}. Nothing was built."
    )
    assert workshop.seen() == before
    assert not workshop.has_called("build")


async def test_what_git_ignores_is_no_change(repair: Repair) -> None:
    done = await repair(patch=shell("echo sells plums > app.txt; echo scratch > ignored"))

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message


@pytest.mark.parametrize("script", ["ln -sf /etc/passwd deep/notes.txt", "ln -s /etc/passwd deep/link"])
async def test_a_patch_makes_no_links(workshop: Workshop, repair: Repair, script: str) -> None:
    done = await repair(patch=shell(script))

    assert "regular files only" in done.told.message("patch")
    assert not workshop.has_called("build")


async def test_files_are_made_changed_removed_and_all_of_it_is_taken_back(workshop: Workshop, repair: Repair) -> None:
    before = workshop.seen()
    script = "echo crashes > app.txt; rm deep/notes.txt; mkdir -p deep/er/still; echo x > deep/er/still/new"

    done = await repair(patch=shell(f"{script}; chmod +x app.txt"))

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before
    assert not (workshop.workspace / "deep" / "er").exists()


async def test_a_verified_repair_makes_changes_and_removes_files(workshop: Workshop, repair: Repair) -> None:
    script = "echo sells plums > app.txt; rm deep/notes.txt; mkdir deep/er; echo x > deep/er/new; chmod +x app.txt"

    done = await repair(patch=shell(script))

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert (workshop.workspace / "deep" / "er" / "new").read_text() == "x\n"
    assert not (workshop.workspace / "deep" / "notes.txt").exists()
    assert (workshop.workspace / "app.txt").stat().st_mode & 0o777 == 0o755


async def test_a_file_with_changes_of_others_is_refused_before_anything_is_patched(
    workshop: Workshop, repair: Repair
) -> None:
    (workshop.workspace / "app.txt").write_text("somebody's work\n")

    done = await repair()

    assert done.told.steps == {"analyze": "failed", "rollback": "skipped"}
    assert "Somebody has changed what the patch changes, and not committed it: app.txt" in done.told.message("analyze")
    assert (workshop.workspace / "app.txt").read_text() == "somebody's work\n"


async def test_a_command_may_not_overwrite_what_git_ignores(workshop: Workshop, repair: Repair) -> None:
    (workshop.workspace / "deep" / "ignored").write_text("precious\n")

    done = await repair(patch=shell("echo lost > deep/ignored; git add --force deep/ignored"))

    assert "the workspace has one that git ignores" in done.told.message("patch")
    assert (workshop.workspace / "deep" / "ignored").read_text() == "precious\n"


async def test_changes_of_others_elsewhere_are_left_alone_and_mentioned(workshop: Workshop, repair: Repair) -> None:
    (workshop.workspace / "deep" / "notes.txt").write_text("somebody's work\n")

    done = await repair(patch=CRASHES)

    assert done.told.steps["rollback"] == "succeeded"
    assert (workshop.workspace / "deep" / "notes.txt").read_text() == "somebody's work\n"
    assert b"not committed, so not part of what is built: deep/notes.txt" in done.told.kept["analyze.log"][1]


async def test_a_second_repair_keeps_what_the_first_has_changed(workshop: Workshop, repair: Repair) -> None:
    await repair(patch=shell("echo sells plums > app.txt"))

    done = await repair(patch={"diff": diff_adding("deep/second.txt", "new")})

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert (workshop.workspace / "app.txt").read_text() == "sells plums\n"
    image = workshop.seen().services["web"][0]
    assert workshop.played["images"][image] == "sells plums\n"
    assert done.outcome.result is not None
    assert json.dumps(done.outcome.result).count("app.txt") == 0


async def test_a_file_of_an_earlier_repair_can_be_repaired_again_without_a_commit(
    workshop: Workshop, repair: Repair
) -> None:
    await repair()
    before = workshop.seen()

    failed = await repair(patch={"diff": diff_of("app.txt", SECOND, "crashes\n")})
    seen_after_failure = workshop.seen()
    worked = await repair(patch={"diff": diff_of("app.txt", SECOND, "sells plums\n")})

    assert failed.told.steps["rollback"] == "succeeded"
    assert seen_after_failure == before
    assert worked.outcome.status is ResultStatus.COMPLETED, worked.outcome.error_message


async def test_what_an_earlier_repair_left_counts_no_more_once_somebody_has_changed_it(
    workshop: Workshop, repair: Repair
) -> None:
    await repair()
    (workshop.workspace / "app.txt").write_text("somebody's work\n")

    done = await repair(patch={"diff": diff_of("app.txt", SECOND, "sells plums\n")})

    assert "Somebody has changed" in done.told.message("analyze")


async def test_a_patch_that_changes_nothing_says_so_and_builds_all_the_same(repair: Repair) -> None:
    done = await repair(patch=shell("true"))

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert done.told.message("patch") == "The patch changes nothing."
    assert done.told.kept["patch.diff"][1] == b"# The patch changes nothing.\n"


@pytest.mark.parametrize(
    ("diff", "problem"),
    [
        ("this is no diff", "The diff cannot be read"),
        (diff_of("app.txt", "something else\n", SECOND), "The diff does not apply"),
        (diff_adding("../stray.txt", "new"), "The diff does not apply"),
    ],
)
async def test_a_diff_that_cannot_be_applied_is_refused_with_the_words_of_git(
    workshop: Workshop, repair: Repair, diff: str, problem: str
) -> None:
    before = workshop.seen()

    done = await repair(patch={"diff": diff})

    assert problem in (done.outcome.error_message or "")
    assert workshop.seen() == before


async def test_a_command_that_fails_fails_the_patch(workshop: Workshop, repair: Repair) -> None:
    done = await repair(patch=shell("echo broken >&2; exit 7"))

    assert done.told.message("patch").startswith("The command '/bin/sh' failed: broken")
    assert b"broken" in done.told.kept["patch.log"][1]
    assert not workshop.has_called("build")


async def test_without_docker_nothing_is_begun(workshop: Workshop, repair: Repair) -> None:
    (workshop.docker / "away").touch()

    done = await repair()

    assert done.told.steps == {"analyze": "failed", "rollback": "skipped"}
    assert done.told.message("analyze").startswith("Docker does not answer")
    assert workshop.worktrees() == []


async def test_a_service_that_the_compose_files_do_not_have_is_refused(workshop: Workshop, repair: Repair) -> None:
    done = await repair(service="mail")

    assert done.told.message("analyze") == "The compose files have no service 'mail'; they have: db, web."


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"workspace": "/nowhere/at/all"}, "is no directory of this host"),
        ({"workspace": "/usr"}, "is not below the compose_root of this agent"),
        ({"compose_files": ["other.yml"]}, "has no file other.yml"),
    ],
)
async def test_a_workspace_that_cannot_be_used_is_refused(
    workshop: Workshop, repair: Repair, changes: dict[str, object], problem: str
) -> None:
    done = await repair(profile=workshop.profile(**changes))

    assert problem in done.told.message("analyze")
    assert done.told.steps == {"analyze": "failed", "rollback": "skipped"}


async def test_a_workspace_must_be_the_top_of_a_repository_with_a_commit(workshop: Workshop, repair: Repair) -> None:
    inner = workshop.workspace / "deep"
    (inner / "docker-compose.yml").write_text("{}")
    inside = await repair(profile=workshop.profile(workspace=str(inner)))
    shutil.rmtree(workshop.workspace / ".git")
    without = await repair()
    git(workshop.workspace, "init", "--quiet")
    unborn = await repair()

    assert "must be the top of its git repository" in inside.told.message("analyze")
    assert "is not usable as a git repository" in without.told.message("analyze")
    assert "has no commit yet" in unborn.told.message("analyze")


async def test_a_secret_in_the_environment_is_in_nothing_that_leaves_the_host(repair: Repair) -> None:
    done = await repair(patch=FAILS_TO_BUILD)

    said = b"".join(data for _, data in done.told.kept.values()).decode() + done.output.text
    said += "".join(report.message for report in done.told.reports) + str(done.outcome)
    assert "password is [redacted]" in done.told.kept["build.log"][1].decode()
    assert PASSWORD not in said


async def test_a_secret_in_the_env_file_of_the_workspace_is_hidden_too(workshop: Workshop, repair: Repair) -> None:
    (workshop.workspace / ".env").write_text("API_TOKEN='very-secret-token'\n")

    done = await repair(patch=shell("echo very-secret-token; exit 1"))

    assert "very-secret-token" not in done.told.kept["patch.log"][1].decode() + done.told.message("patch")


async def test_a_cancel_while_a_command_of_the_patch_runs_takes_everything_back(
    workshop: Workshop, keepers: Keepers
) -> None:
    before, stop, told = workshop.seen(), StopSignal(), Told()
    context = workshop.context(keepers, told, Output(), stop=stop)
    parameters = workshop.parameters(patch=shell("echo slow > app.txt; sleep 600"))
    running = asyncio.create_task(carry_out(workshop.executor(), parameters, context))
    log = workshop.store.logs(KEY) / "patch.log"
    await eventually(lambda: log.exists() and "sleep 600" in log.read_text())

    stop.order(StopReason.CANCELLED, grace=1)
    outcome = await running

    assert outcome.status is ResultStatus.CANCELLED
    assert told.steps == {"analyze": "succeeded", "patch": "failed", "rollback": "skipped"}
    assert told.message("patch") == "It was cancelled."
    assert workshop.seen() == before


async def test_a_lost_lease_after_the_restart_rolls_back_and_does_not_stop_half_way(
    workshop: Workshop, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 600.0)
    before, stop, told = workshop.seen(), StopSignal(), Told()
    context = workshop.context(keepers, told, Output(), stop=stop)
    running = asyncio.create_task(carry_out(workshop.executor(), workshop.parameters(), context))
    await eventually(lambda: told.steps.get("verify") == "in_progress")

    stop.order(StopReason.LEASE_LOST, grace=0)
    outcome = await running

    assert outcome.status is ResultStatus.FAILED
    assert (outcome.error_message or "").startswith("The agent lost its lease.")
    assert told.steps["rollback"] == "succeeded"
    assert workshop.seen() == before


async def test_an_order_to_stop_before_the_first_step_begins_nothing(workshop: Workshop, repair: Repair) -> None:
    stop = StopSignal()
    stop.order(StopReason.CANCELLED, grace=0)

    done = await repair(stop=stop)

    assert done.outcome.status is ResultStatus.CANCELLED
    assert done.told.steps == {"rollback": "skipped"}


async def test_walls_that_keep_a_repair_from_docker_are_refused(repair: Repair) -> None:
    done = await repair(context={"enclosure": Enclosure(Confinement(network_off=True))})

    assert done.outcome.error_code is ErrorCode.CONFINEMENT_NOT_POSSIBLE
    assert "cannot be shut in by network_off" in (done.outcome.error_message or "")
    assert done.told.steps == {"analyze": "failed", "rollback": "skipped"}


async def test_a_service_is_repaired_by_one_at_a_time(workshop: Workshop, repair: Repair) -> None:
    workshop.store.open()
    with workshop.store.holding(KEY):
        done = await repair()

    assert done.told.message("analyze") == "This host works on the service 'web' already."
    assert done.told.steps == {"analyze": "failed", "rollback": "skipped"}


async def test_a_service_that_is_not_in_order_again_takes_no_other_repair(workshop: Workshop, repair: Repair) -> None:
    first = await repair(patch=CRASHES)
    workshop.store.write(workshop.unit.changed(end=None))

    done = await repair()

    assert done.told.message("analyze") == f"This host still puts the service in order after the task {first.task_id}."


async def test_services_of_one_name_in_two_projects_are_two(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    ours = workshop.unit
    other = workshop.profile(project="other")

    with workshop.store.holding(KEY):
        done = await repair(
            profile=other, patch=shell("echo sells plums > app.txt"), steps=["analyze", "patch", "build"]
        )

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert workshop.unit == ours
    kept = {name: image for name, image in workshop.played["names"].items() if name.startswith("chiffon-repair-")}
    assert kept["chiffon-repair-candidate:shop.web"] == ours.candidate
    assert kept["chiffon-repair-candidate:other.web"] not in (None, ours.candidate)
    deployed = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id))
    assert deployed.outcome.status is ResultStatus.COMPLETED, deployed.outcome.error_message
    assert workshop.seen().services["web"][0] == ours.candidate


async def test_a_copy_that_is_not_what_was_kept_any_more_is_not_put_in_place(
    workshop: Workshop, repair: Repair
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    before = workshop.seen()
    [kept] = (workshop.store.folder / f"{KEY}.after").iterdir()
    kept.write_text("sells poison\n")

    done = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id))

    assert "does not hold any more what was kept" in done.told.message("restart")
    assert done.told.steps["rollback"] == "succeeded"
    assert workshop.seen() == before


async def test_a_state_that_cannot_be_read_is_said_and_stays(workshop: Workshop, repair: Repair) -> None:
    workshop.store.open()
    (workshop.store.folder / "shop.web.json").write_text("{torn")

    done = await repair()

    assert "shop.web.json cannot be read" in done.told.message("analyze")
    assert (workshop.store.folder / "shop.web.json").read_text() == "{torn"


class TestWithTheNewerCompose:
    @pytest.fixture(autouse=True)
    def newer(self, workshop: Workshop) -> None:
        (workshop.docker / "newer").touch()
        names = workshop.played["names"]
        workshop.play(names={name.replace("shop_web", "shop-web"): image for name, image in names.items()})

    async def test_a_repair_is_verified(self, workshop: Workshop, repair: Repair) -> None:
        done = await repair()

        after = workshop.seen()
        assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
        assert workshop.unit.compose == ["docker", "compose"]
        assert after.names["shop-web:latest"] == after.services["web"][0] == workshop.unit.candidate
        assert "shop_web:latest" not in after.names

    async def test_a_repair_is_rolled_back(self, workshop: Workshop, repair: Repair) -> None:
        before = workshop.seen()

        done = await repair(patch=CRASHES)

        assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
        assert workshop.seen() == before


async def test_commands_run_as_the_user_of_the_work_and_all_else_as_the_agent(
    make_workshop: MakeWorkshop, keepers: Keepers
) -> None:
    is_root = os.geteuid() == 0
    user = User.named("nobody") if is_root else None
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    workshop, told = make_workshop(folder), Told()
    for above in (workshop.state_dir, workshop.store.folder):
        above.mkdir(mode=0o711)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", workshop.environment["PATH"])
        context = workshop.context(keepers, told, Output(), enclosure=Enclosure(user=user))
        parameters = workshop.parameters(patch=shell("id -un > deep/who; echo sells plums > app.txt"))
        outcome = await carry_out(workshop.executor(), parameters, context)

    made = workshop.workspace / "deep" / "who"
    assert outcome.status is ResultStatus.COMPLETED, outcome.error_message
    assert made.read_text().strip() == ("nobody" if is_root else pwd.getpwuid(os.geteuid()).pw_name)
    assert made.stat().st_uid == os.geteuid()
    assert (workshop.workspace / "app.txt").stat().st_uid == os.geteuid()
    shutil.rmtree(folder)
