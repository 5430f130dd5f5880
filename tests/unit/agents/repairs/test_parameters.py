"""Every mistake in the parameters of a repair is named in one sentence."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from common.compose import ComposeRepairParameters, HealthCheck, PatchSource, ServiceProfile

PROFILE = {"project": "shop", "workspace": "/srv/shop", "allowlist": ["src/**"], "commands_allowed": [["sed", "-i"]]}
DIFF = {"diff": "--- a/x\n+++ b/x\n"}
REPAIR = {
    "run_id": str(UUID(int=1)),
    "service": "web",
    "profile": PROFILE,
    "patch": DIFF,
    "steps": ["analyze", "patch", "build", "restart", "verify"],
}

DEPLOY = {"steps": ["restart", "verify"], "patch": None, "resumes": str(UUID(int=2))}


def problem_of(model: Any, given: dict[str, Any]) -> tuple[str, str]:
    """Return the place and the text of the only mistake."""
    with pytest.raises(ValidationError) as refused:
        model.model_validate(given)
    [problem] = refused.value.errors()
    return ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")


def test_a_profile_has_defaults_for_what_most_services_share() -> None:
    profile = ServiceProfile(project="shop", workspace="/srv/shop", allowlist=["src/**"])

    assert profile.compose_files == ["docker-compose.yml"]
    assert (profile.restart_timeout_seconds, profile.healthcheck, profile.compose_command) == (60, None, None)
    check = HealthCheck(url="http://127.0.0.1:80/")
    assert (check.method, check.timeout_seconds, check.interval_seconds, check.expected_status) == ("GET", 120, 5, 200)


@pytest.mark.parametrize(
    ("changes", "place", "problem"),
    [
        ({"workspace": "srv"}, "workspace", "must be an absolute path"),
        ({"workspace": "/"}, "workspace", "must be an absolute path, and not /"),
        ({"workspace": "/srv/../etc"}, "workspace", "without '.', '..'"),
        ({"workspace": "/srv/shop/"}, "workspace", "a slash at its end"),
        ({"workspace": "/srv/a\nb"}, "workspace", "must not contain control"),
        ({"project": "Shop"}, "project", "should match pattern"),
        ({"compose_files": []}, "compose_files", "at least 1 item"),
        ({"compose_files": ["/etc/compose.yml"]}, "compose_files.0", "relative to the workspace"),
        ({"compose_files": ["../compose.yml"]}, "compose_files.0", "relative to the workspace"),
        ({"allowlist": []}, "allowlist", "at least 1 item"),
        ({"allowlist": ["/srv/**"]}, "allowlist.0", "relative to the workspace"),
        ({"allowlist": ["src/../x"]}, "allowlist.0", "relative to the workspace"),
        ({"allowlist": ["src/a**"]}, "allowlist.0", "'**' as a whole name only"),
        ({"commands_allowed": [[]]}, "commands_allowed.0", "at least 1 item"),
        ({"commands_allowed": ["sed -i"]}, "commands_allowed.0", "valid list"),
        ({"restart_timeout_seconds": 0}, "restart_timeout_seconds", "greater than 0"),
        ({"restart_timeout_seconds": "60"}, "restart_timeout_seconds", "must be a number, without quotes"),
        ({"compose_command": "docker compose"}, "compose_command", "valid list"),
        ({"healthcheck": {"url": "ftp://x/"}}, "healthcheck.url", "must be an address such as http://"),
        ({"healthcheck": {"url": "http://me:secret@x/"}}, "healthcheck.url", "without a user"),
        ({"healthcheck": {"url": "http://x/#part"}}, "healthcheck.url", "without a user and a fragment"),
        ({"healthcheck": {"url": "http://127.0.0.1:x/"}}, "healthcheck.url", "must be an address such as http://"),
        ({"healthcheck": {"url": "http://127.0.0.1:70000/"}}, "healthcheck.url", "must be an address such as http://"),
        ({"healthcheck": {"url": "http://[::/"}}, "healthcheck.url", "must be an address such as http://"),
        ({"healthcheck": {"url": "http://x/", "method": "get"}}, "healthcheck.method", "'GET', 'HEAD' or 'POST'"),
        ({"healthcheck": {"url": "http://x/", "expected_status": 99}}, "healthcheck.expected_status", "100"),
        ({"healthcheck": {"url": "http://x/", "interval_seconds": 0}}, "healthcheck.interval_seconds", "0.1"),
        ({"healthcheck": {"url": "http://x/", "timeout_seconds": 0}}, "healthcheck.timeout_seconds", "0"),
        ({"colour": "red"}, "colour", "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_a_profile(changes: dict[str, Any], place: str, problem: str) -> None:
    found = problem_of(ServiceProfile, {**PROFILE, **changes})

    assert found[0] == place
    assert problem in found[1]


@pytest.mark.parametrize("missing", ["project", "workspace", "allowlist"])
def test_a_profile_needs_its_place_and_its_limits(missing: str) -> None:
    given = {name: value for name, value in PROFILE.items() if name != missing}

    assert problem_of(ServiceProfile, given) == (missing, "Field required")


@pytest.mark.parametrize("given", [{}, {"diff": "x", "commands": [["true"]]}])
def test_a_patch_is_a_diff_or_commands(given: dict[str, Any]) -> None:
    assert problem_of(PatchSource, given) == ("", "give exactly one of 'diff' and 'commands'")


@pytest.mark.parametrize(
    ("given", "place"),
    [({"diff": ""}, "diff"), ({"commands": []}, "commands"), ({"commands": [[]]}, "commands.0")],
)
def test_a_patch_is_not_empty(given: dict[str, Any], place: str) -> None:
    assert problem_of(PatchSource, given)[0] == place


def test_a_command_is_a_list_and_no_text() -> None:
    place, problem = problem_of(PatchSource, {"commands": ["sed -i s/a/b/ x"]})

    assert (place, problem) == ("commands.0", "Input should be a valid list")


@pytest.mark.parametrize(
    ("changes", "place", "problem"),
    [
        ({"steps": []}, "steps", "at least 1 item"),
        ({"steps": ["patch", "analyze"]}, "steps", "in this order and without a gap"),
        ({"steps": ["analyze", "build"]}, "steps", "in this order and without a gap"),
        ({"steps": ["analyze", "patch", "build", "restart"]}, "steps", "must have 'verify' after 'restart'"),
        ({"steps": ["rollback"]}, "steps.0", "'analyze', 'patch', 'build', 'restart' or 'verify'"),
        ({"patch": None}, "", "give 'patch' exactly when 'steps' has 'patch'"),
        ({"steps": ["build"]}, "", "give 'patch' exactly when 'steps' has 'patch'"),
        ({"steps": ["build"], "patch": None}, "", "'resumes' is needed where 'steps' begins with 'build'"),
        ({"diff_sha256": "a" * 64}, "", "'diff_sha256' is of the task in 'resumes'"),
        ({"diff_sha256": "no"}, "diff_sha256", "should match pattern"),
        ({**DEPLOY, "diff": ["x"]}, "", "'diff' needs 'diff_sha256' beside it"),
        ({**DEPLOY, "diff": []}, "diff", "at least 1 item"),
        ({**DEPLOY, "diff": ["x" * 49_150]}, "diff", "must have at most 49152 bytes of JSON, not 49154"),
        ({"service": "../web"}, "service", "should match pattern"),
        ({"run_id": "one"}, "run_id", "valid UUID"),
        (
            {"patch": {"commands": [["rm", "-rf"]]}},
            "",
            "patch.commands.0: no command of the service may begin with 'rm'",
        ),
        ({"patch": {"commands": [["sed", "-n"]]}}, "", "patch.commands.0: no command of the service may begin with"),
        ({"patch": {"commands": [["sed"]]}}, "", "patch.commands.0: no command of the service may begin with"),
    ],
)
def test_what_is_wrong_with_a_repair(changes: dict[str, Any], place: str, problem: str) -> None:
    found = problem_of(ComposeRepairParameters, {**REPAIR, **changes})

    assert found[0] == place
    assert problem in found[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch": {"commands": [["sed", "-i", "s/a/b/", "src/x"], ["sed", "-i"]]}},
        {"steps": ["analyze", "patch", "build"]},
        {"steps": ["patch", "build", "restart", "verify"], "resumes": str(UUID(int=2))},
        {"steps": ["restart", "verify"], "patch": None, "resumes": str(UUID(int=2)), "diff_sha256": "a" * 64},
        {"steps": ["verify"], "patch": None, "resumes": str(UUID(int=2))},
        {**DEPLOY, "diff_sha256": "a" * 64, "diff": ["x" * 49_148]},
    ],
)
def test_what_a_repair_may_be(changes: dict[str, Any]) -> None:
    given = {**REPAIR, **changes}

    assert ComposeRepairParameters.model_validate(given).steps == given["steps"]
