"""Repairs as their callers see them: asked for over REST, done by an agent with real git, docker and docker-compose."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from agents.settings import DEFAULT_ENV_ALLOW
from common.http_client import client_options
from common.rest.identities import Role
from tests.integration.repair_requests import conftest as contract
from tests.integration.repair_requests.conftest import RUNS, Json, open_shop, own_ledger, settings_of, statuses
from tests.integration.repair_requests.scripted import Host
from tests.integration.repair_requests.test_metrics import Receiver, open_receiver, steps
from tests.integration.repairs.shop import PASSWORD, SERVICE, STEPS, Shop
from tests.services.ports import free_ports
from tests.services.postgres import Postgres

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("docker")]

SERVICES = """
[service.web]
{profile}
[service.guarded]
service = "web"
approval = {{ requirement = "pre-run" }}
{profile}
"""
PROFILE = """
project = "{project}"
workspace = "{workspace}"
allowlist = ["www/**", "build.sh"]
commands_allowed = [["sh", "-c"]]
healthcheck = {{ url = "http://127.0.0.1:{port}/health", timeout_seconds = 5, interval_seconds = 1 }}
"""
PEARS = "echo pears > www/health"
UNHEALTHY = "rm www/health; echo x > www/other"
OUTSIDE = {
    "unstaged": "echo '#' >> Dockerfile",
    "staged": "echo '#' >> Dockerfile; git add Dockerfile",
    "untracked": "echo new > stray",
}


@dataclass
class Site:
    """An orchestrator, an agent that may repair the shop, and the shop."""

    office: contract.Shop
    shop: Shop

    async def create(self, script: str, *, service: str = "web", **body: Any) -> Json:
        """Ask for a repair whose patch is a script."""
        return await self.office.create(service, patch={"commands": [["sh", "-c", script]]}, **body)

    async def repair(self, script: str) -> Json:
        """Ask for a repair and return it once it has ended."""
        return await self.ended(await self.create(script))

    async def ended(self, run: Json) -> Json:
        return await self.office.ended(run["run_id"], timeout=240, every=0.5)

    async def seen(self) -> Any:
        return await asyncio.to_thread(self.shop.seen)

    async def left(self, run: Json) -> dict[str, bytes]:
        """Return the files that a repair left, by their paths; each is what its digest says."""
        found: dict[str, bytes] = {}
        async with httpx2.AsyncClient(timeout=30, **client_options(self.office.url)) as nobody:
            for one in run["artifacts"]:
                answer = await nobody.get(one["signed_path"])
                assert answer.status_code == 200, answer.text
                assert hashlib.sha256(answer.content).hexdigest() == one["checksum"]
                found[one["path"]] = answer.content
        return found


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
    writer.close()


def times(run: Json, step: str) -> tuple[str, str]:
    """Return when a step began and ended."""
    return next((one["started_at"], one["completed_at"]) for one in run["steps"] if one["name"] == step)


def message(run: Json, step: str) -> str:
    return next(str(one["message"]) for one in run["steps"] if one["name"] == step)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with open_receiver() as opened:
        yield opened


@pytest.fixture(scope="module")
async def site(
    shop: Shop,
    postgres: Postgres,
    ledger_template: str,
    receiver: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    services = folder / "shop.toml"
    profile = PROFILE.format(project=shop.project, workspace=shop.workspace, port=shop.port)
    services.write_text(SERVICES.format(profile=profile))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in shop.environment.items():
            patched.setenv(name, value)
        async with own_ledger(postgres, ledger_template) as ledger:
            settings = settings_of(
                ledger.url,
                folder,
                services_file=services,
                statsd_host="127.0.0.1",
                statsd_port=receiver.port,
                statsd_prefix="test.runs",
            )
            async with open_shop(settings, ledger.pool, Host(folder), folder, with_agent=False) as office:
                await office.start_agent(compose_root=shop.root, env_allow=[*DEFAULT_ENV_ALLOW, "DB_PASSWORD"])
                yield Site(office, shop)


async def test_a_repair_succeeds_and_only_its_service_is_touched(site: Site, receiver: Receiver) -> None:
    before = await site.seen()

    run = await site.repair(PEARS)

    after, files = await site.seen(), await site.left(run)
    assert run["status"] == "succeeded", run
    assert statuses(run) == {**dict.fromkeys(STEPS, "succeeded"), "rollback": "skipped"}
    assert after.other == before.other
    assert after.runs == [f"{after.image} running"] != before.runs
    assert {"patch.diff", "build.log", "verify.log", "rollback.log"} <= files.keys()
    assert b"-apples\n+pears\n" in files["patch.diff"]
    told = Counter({"runs.queued": 1, "runs.queued.service.web": 1, "runs.status.running": 1})
    told.update(["runs.status.succeeded", "runs.duration.succeeded"])
    told.update(steps(**dict.fromkeys(STEPS, "succeeded")))
    assert await receiver.has(*told) == told

    # Compose itself would run the same, so it leaves it alone.
    [repaired] = site.shop.containers(SERVICE)
    site.shop.compose("up", "--detach", "--no-build")
    [same] = site.shop.containers(SERVICE)
    assert (same["Id"], same["State"]["StartedAt"]) == (repaired["Id"], repaired["State"]["StartedAt"])


async def test_what_is_no_request_touches_nothing(site: Site) -> None:
    before, runs = await site.seen(), await site.office.get(RUNS)

    for body, status in (
        ({"instruction": "x", "target_service": "db"}, 400),
        ({"instruction": " ", "target_service": "web"}, 400),
        ({"instruction": "x", "target_service": "web", "priority": "urgent"}, 422),
    ):
        await site.office.post(RUNS, body, status=status)

    assert await site.office.get(RUNS) == runs
    assert await site.seen() == before


async def test_a_change_outside_the_allow_list_is_named_and_nothing_is_built(site: Site) -> None:
    before, images = await site.seen(), site.shop.images()

    for change, script in OUTSIDE.items():
        run = await site.repair(f"echo plums > www/health; {script}")

        assert (run["status"], statuses(run)["patch"]) == ("failed", "failed"), change
        assert statuses(run)["rollback"] == "skipped", change
        assert statuses(run)["build"] == "skipped"
        assert ("stray" if change == "untracked" else "Dockerfile") in message(run, "patch")
        assert await site.seen() == before
        assert site.shop.images() == images


async def test_a_build_that_fails_restarts_nothing_and_leaves_its_log_without_a_secret(site: Site) -> None:
    before, containers = await site.seen(), site.shop.containers(SERVICE)

    run = await site.repair("echo 'echo it is broken; exit 1' >> build.sh")

    assert (run["status"], statuses(run)["build"], statuses(run)["restart"]) == ("failed", "failed", "skipped")
    assert await site.seen() == before
    assert [(one["Id"], one["State"]["StartedAt"]) for one in site.shop.containers(SERVICE)] == [
        (one["Id"], one["State"]["StartedAt"]) for one in containers
    ]
    files = await site.left(run)
    events = await site.office.pool.fetch("SELECT data::text AS data FROM event")
    output = await site.office.pool.fetch("SELECT text FROM output_chunk")
    said = [*map(str, files.values()), str(run), *(row["data"] for row in events), *(row["text"] for row in output)]
    assert b"it is broken" in files["build.log"]
    assert b"the password is [redacted]" in files["build.log"], files["build.log"].decode()
    assert all(PASSWORD not in text for text in said)


async def test_a_service_that_never_answers_runs_what_it_ran_before(site: Site) -> None:
    before = await site.seen()

    run = await site.repair(UNHEALTHY)

    assert (run["status"], statuses(run)["verify"], statuses(run)["rollback"]) == ("rolled_back", "failed", "succeeded")
    assert "rollback.log" in await site.left(run)
    assert await site.seen() == before


async def test_a_guarded_service_is_not_touched_before_somebody_else_agrees(site: Site) -> None:
    before, office = await site.seen(), site.office
    run = await site.create(PEARS, service="guarded")
    operator = await office.operator()
    viewer = await office.somebody(Role.VIEWER)

    for by in (operator, viewer):
        answer = await by.http.post(
            f"{RUNS}/{run['run_id']}/approvals",
            json={"approver": {"id": by.name, "role": "approver"}, "token": run["approval_id"]},
        )
        assert answer.status_code in (403, 409), answer.text
    waiting = await office.get(f"{RUNS}/{run['run_id']}")
    untouched = await site.seen()
    await office.retry(run, status=409)
    agreed = await office.approve(run)
    await office.approve(run, status=409)
    ended = await site.ended(run)

    assert (waiting["status"], waiting["approval_status"]) == ("awaiting_approval", "awaiting")
    assert set(statuses(waiting).values()) == {"pending"}
    assert untouched == before
    assert agreed["approval_status"] == "granted"
    assert (ended["status"], (await site.seen()).files["www/health"][0]) == ("succeeded", "pears\n")


async def test_what_failed_goes_on_from_the_build_once_its_cause_is_gone(site: Site) -> None:
    [port] = free_ports(1)
    failed = await site.repair(f"{PEARS}; echo 'busybox wget -q -O- http://127.0.0.1:{port}/ || exit 1' >> build.sh")

    async with await asyncio.start_server(_answer, "127.0.0.1", port):
        again = await site.office.retry(failed, resume_from_step="build")
        run = await site.ended(again)

    assert (failed["status"], statuses(failed)["build"]) == ("failed", "failed")
    assert (run["status"], set(statuses(run).values())) == ("succeeded", {"succeeded", "skipped"})
    for step in ("analyze", "patch"):
        assert times(run, step) == times(failed, step)
    assert (await site.left(run))["patch.diff"] == (await site.left(failed))["patch.diff"]
    assert (await site.seen()).files["www/health"][0] == "pears\n"
