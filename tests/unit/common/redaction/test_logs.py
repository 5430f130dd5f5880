"""The agent's own log lines hide secrets, tracebacks included."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agents.identity.own_secrets import own_secrets
from agents.settings import AgentSettings
from common.config import SharedSettings
from common.logs import configure_logs
from common.redaction.logs import hidden_in_logs
from common.redaction.values import Values

SECRET = 'hunter2 "and" more'


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    before = logging.getLogger().handlers[:]
    configure_logs(service="agent", level="INFO", style="json")
    yield stream
    logging.getLogger().handlers[:] = before


def test_a_value_is_hidden_in_messages_fields_and_tracebacks(written: io.StringIO) -> None:
    with hidden_in_logs(Values([SECRET])):
        failure = ValueError(SECRET)
        logging.getLogger("x").error("it is %s", SECRET, extra={"reason": SECRET}, exc_info=failure)

    line = written.getvalue()
    assert "hunter2" not in line
    assert json.loads(line)["reason"] == "[redacted]"


def test_what_is_logged_afterwards_is_formatted_as_before(written: io.StringIO) -> None:
    with hidden_in_logs(Values([SECRET])):
        pass
    logging.getLogger("x").info(SECRET)

    assert json.loads(written.getvalue())["event"] == SECRET


@pytest.mark.parametrize("leaves", [0, 1], ids=["first", "second"])
def test_what_an_agent_hides_stays_hidden_when_another_of_its_process_leaves(written: io.StringIO, leaves: int) -> None:
    secrets = ["secret of one", "secret of the other"]
    agents = [ExitStack(), ExitStack()]
    for agent, secret in zip(agents, secrets, strict=True):
        agent.enter_context(hidden_in_logs(Values([secret])))
    log = logging.getLogger("x")

    log.info(", ".join(secrets))
    agents.pop(leaves).close()
    log.info(secrets[1 - leaves])
    agents.pop().close()
    log.info(secrets[0])

    events = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert events == ["[redacted], [redacted]", "[redacted]", secrets[0]]


def test_the_agents_own_passwords_are_secrets() -> None:
    settings = AgentSettings.load(server_url="https://worker:of%20the%20agent@host/")
    shared = SharedSettings.load(broker_url="amqp://me:broker-password@host/")

    assert {"broker-password", "of the agent"} <= set(own_secrets(settings, shared))


def test_a_password_that_is_the_users_name_is_no_secret() -> None:
    assert list(own_secrets(AgentSettings.load(), SharedSettings.load())) == []
