"""Repairs of a service with real git, docker and docker-compose, on the host alone; see also `test_over_rest`."""

import hashlib
from typing import Any

import pytest

from agents.repairs.state import End
from common.messages import ResultStatus
from tests.integration.repairs.conftest import Repair
from tests.integration.repairs.shop import SERVICE, STEPS, Shop

# Installing docker, where it is missing, takes longer than a test may.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("docker")]

PEARS = "echo pears > www/health"


async def test_a_repair_is_verified_and_no_other_container_is_touched(shop: Shop, repair: Repair) -> None:
    before = shop.seen()

    done = await repair(PEARS)

    after = shop.seen()
    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert done.told.steps == {**dict.fromkeys(STEPS, "succeeded"), "rollback": "skipped"}
    assert after.other == before.other
    assert after.image != before.image
    assert after.runs == [f"{after.image} running"]
    assert after.files["www/health"][0] == "pears\n"
    assert {"patch.diff", "build.log", "verify.log", "rollback.log"} <= done.told.kept.keys()
    diff = done.told.kept["patch.diff"][1]
    assert b"-apples\n+pears\n" in diff
    assert done.outcome.result is not None
    assert shop.unit.diff_sha256 == hashlib.sha256(diff).hexdigest()
    assert shop.unit.end is End.VERIFIED

    # Compose itself would run the same, so it leaves it alone.
    [repaired] = shop.containers(SERVICE)
    shop.compose("up", "--detach", "--no-build")
    [same] = shop.containers(SERVICE)
    assert (same["Id"], same["State"]["StartedAt"]) == (repaired["Id"], repaired["State"]["StartedAt"])


async def test_a_container_that_ends_at_once_is_rolled_back(shop: Shop, repair: Repair) -> None:
    before = shop.seen()

    done = await repair("printf 'mv /bin/httpd /bin/gone\\n' >> build.sh", profile=shop.profile(healthcheck=None))

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert shop.seen() == before


async def test_a_retry_from_the_verification_restarts_what_was_taken_back(shop: Shop, repair: Repair) -> None:
    unreachable = shop.profile(healthcheck={"url": "http://127.0.0.1:9/", "timeout_seconds": 1})
    before = shop.seen()
    prepared = await repair("echo plums > www/health", profile=unreachable, steps=["analyze", "patch", "build"])
    assert shop.seen() == before
    assert isinstance(prepared.outcome.result, dict), prepared.outcome.error_message
    agreed: dict[str, Any] = {
        "patch": None,
        **{name: prepared.outcome.result[name] for name in ("diff", "diff_sha256")},
    }
    assert agreed["diff"][-2:] == ["-pears", "+plums"]
    deploy = {"profile": unreachable, "steps": ["restart", "verify"], "resumes": str(prepared.task_id)}
    failed = await repair("", **deploy, **agreed)

    again = await repair("", steps=["verify"], resumes=str(failed.task_id), **agreed)

    assert failed.told.steps["rollback"] == "succeeded", failed.told.message("rollback")
    assert again.told.steps == {"restart": "succeeded", "verify": "succeeded", "rollback": "skipped"}
    assert shop.seen().files["www/health"][0] == "plums\n"
