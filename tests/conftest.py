"""Fixtures of all tests: one RabbitMQ, one PostgreSQL and one directory for the whole run."""

import asyncio
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Generator, Iterator

import aio_pika
import pytest

from common.garbage import keep_all, look_rarely
from tests.services import run, shared
from tests.services.postgres import Postgres
from tests.services.rabbitmq import start_rabbitmq
from tests.services.rabbitmq_node import Node

# The tests and what they import stay to the end, as with a program of Chiffon; looking through them takes a tenth of
# the run.
look_rarely()


def _forget(_connection: aio_pika.Connection) -> None:
    """Do nothing."""


# A connection that never came about is open for the library. When it is collected, which may be within any later test,
# the library would close it in a task, and without a running loop that is a warning that fails the test.
aio_pika.Connection.__del__ = _forget  # type: ignore[method-assign]

# Most tests are about something else than authentication; those about it set it to "required" themselves.
os.environ["CHIFFON_AUTHENTICATION"] = "off"


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main() -> Generator[None, object, object]:
    """Run the tests in a directory of their own; processes that they leave behind fail the run."""
    guard = run.begin()
    try:
        status = yield
    finally:
        left = 0 if guard is None else run.end(guard)
    return status or (pytest.ExitCode.TESTS_FAILED if left else status)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the shared servers start while the workers of a parallel run collect its tests."""
    if getattr(session.config.option, "numprocesses", None):
        shared.begin()


@pytest.fixture(scope="session", autouse=True)
def unsigned_work() -> Iterator[None]:
    """Let agents run unsigned work, except where a test is about signatures."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHIFFON_AGENT_SIGNATURES", "off")
        environment.setenv("CHIFFON_SIGNATURES", "off")
        yield


@pytest.fixture(scope="session")
def rabbitmq() -> Node:
    """The RabbitMQ that all tests share; a test that stops or overloads it takes `own_rabbitmq`."""
    return shared.shared_rabbitmq()


@pytest.fixture(scope="session")
def own_rabbitmq() -> Iterator[Node]:
    """A RabbitMQ that tests may stop: no other worker uses it."""
    node = start_rabbitmq()
    yield node
    node.stop()


@pytest.fixture(scope="session")
async def postgres() -> Postgres:
    """The PostgreSQL that all tests share; a test that stops it starts one of its own."""
    return await asyncio.to_thread(shared.shared_postgres)


@pytest.fixture
def amqp_url(rabbitmq: Node) -> str:
    """The URL of a virtual host with nothing in it."""
    return rabbitmq.new_vhost_url()


@pytest.fixture
async def database_url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    url = await postgres.create_database()
    yield url
    await postgres.drop_database(url)


# Folders whose tests wait for servers and processes more than they compute.
WAITING = (
    "tests/chaos",
    "tests/integration/failover",
    "tests/integration/conformance",
    "tests/integration/test_interrupted_run.py",
    "tests/integration/system",
    "tests/integration/agents",
    "tests/acceptance",
    "tests/contract",
    "tests/fuzz",
    "tests/exploration",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix the files, so that tests that wait run beside tests that compute; in every run the same way.

    The last tests only compute: they are short, and no worker ends long after the others.
    """

    def turn(item: pytest.Item) -> float:
        name = item.nodeid.partition("::")[0]
        place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
        return place * (0.85 if name.startswith(WAITING) else 1.0)

    items.sort(key=turn)


def pytest_collection_finish() -> None:
    """Never look for garbage among the tests themselves."""
    keep_all()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Look for garbage once: after this, pytest looks five times for objects that no test awaited or closed."""
    keep_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many tests each group has and how long they took, set-up and teardown included."""
    seconds, tests = defaultdict[str, float](float), Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                group = "/".join(report.nodeid.split("/")[:3]).split("::")[0]
                seconds[group] += report.duration
                tests[group] += report.when == "call"
    terminalreporter.section("test seconds and tests per group")
    for group, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.write_line(f"{taken:8.1f} s {tests[group]:5} {group}")
