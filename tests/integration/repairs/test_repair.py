"""Repairs of a service with real git, docker and docker-compose, on the host alone; most are in `test_over_rest`."""

from typing import Any

import pytest

from tests.integration.repairs.conftest import Repair
from tests.integration.repairs.shop import Shop

# Installing docker, where it is missing, takes longer than a test may.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("docker")]


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
    assert agreed["diff"][-2:] == ["-apples", "+plums"]
    deploy = {"profile": unreachable, "steps": ["restart", "verify"], "resumes": str(prepared.task_id)}
    failed = await repair("", **deploy, **agreed)

    again = await repair("", steps=["verify"], resumes=str(failed.task_id), **agreed)

    assert failed.told.steps["rollback"] == "succeeded", failed.told.message("rollback")
    assert again.told.steps == {"restart": "succeeded", "verify": "succeeded", "rollback": "skipped"}
    assert shop.seen().files["www/health"][0] == "plums\n"
