"""`chiffon rabbitmq`: what is right stays as it is, what is not is named and changed, and a person can do the same."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from pydantic import SecretStr

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from chiffon.rabbitmq import plan
from chiffon.rabbitmq.commands import command_of
from chiffon.rabbitmq.management import ManagementRefused, open_management
from chiffon.rabbitmq.steps import Rights, User
from common.broker.base import QueueType
from common.broker.connect import open_broker
from common.broker.rabbitmq_user import user_of_agent
from tests.eventually import eventually
from tests.integration.system.rights import Rabbit, make_rabbit
from tests.services.rabbitmq_node import InstalledNode, Node

ADMIN_PASSWORD = "guest"
SURVIVING = Path(__file__).parents[3] / "docs" / "how-to" / "survive-failures.md"
DELIVERY_LIMIT = re.compile(r"`rabbitmqctl (\S+) -p chiffon (\S+) '([^']+)' '([^']+)' --apply-to quorum_queues`")
# One thread is enough for a command, and to start more takes most of its time.
FEW_THREADS = {"RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +A 1 +sbwt none"}


@pytest.fixture
def rabbit(managed_rabbitmq: Node) -> Rabbit:
    return make_rabbit(managed_rabbitmq)


@pytest.fixture
def environment(rabbit: Rabbit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "admin"
    secret.write_text(f"{ADMIN_PASSWORD}\n")
    monkeypatch.setenv("CHIFFON_RABBITMQ_ADMIN_PASSWORD_FILE", str(secret))
    for name in ("management_url", "vhost", "user", "amqp_url"):
        monkeypatch.setenv(f"CHIFFON_RABBITMQ_{name}".upper(), getattr(rabbit.settings, name))


async def test_a_second_setup_changes_nothing_and_what_was_changed_by_others_is_put_right(rabbit: Rabbit) -> None:
    first, second = await rabbit.setup(), await rabbit.setup()
    loose = Rights(rabbit.settings.vhost, rabbit.settings.user, ".*", ".*", ".*")
    await rabbit.apply([loose])

    third = await rabbit.setup()

    assert f"virtual host {rabbit.settings.vhost}" in first
    assert f"user {rabbit.settings.user}" in first
    assert second == []
    assert third == [f"rights of {rabbit.settings.user}"]


async def test_a_new_password_of_the_orchestrator_replaces_the_old_one(rabbit: Rabbit) -> None:
    await rabbit.setup()

    changed = await rabbit.setup(new_password=True)

    user = rabbit.settings.user
    assert changed == [f"password of user {user}", f"connections of {user} closed"]
    async with open_broker(rabbit.orchestrator_url, name="test") as broker:
        await broker.check()


async def test_another_password_or_no_answer_is_named(rabbit: Rabbit) -> None:
    for wrong, words in (
        ({"admin_password": SecretStr("wrong")}, "CHIFFON_RABBITMQ_ADMIN_USER"),
        ({"management_url": "http://127.0.0.1:1"}, "CHIFFON_RABBITMQ_MANAGEMENT_URL"),
    ):
        async with open_management(rabbit.settings.model_copy(update=wrong)) as management:
            with pytest.raises(ManagementRefused, match=words):
                await management.apply([User("x", "y")])


async def test_what_is_printed_for_doing_by_hand_leaves_nothing_to_change(rabbit: Rabbit, tmp_path: Path) -> None:
    agent_id, node = uuid4(), rabbit.node
    assert isinstance(node, InstalledNode)
    steps = [
        *plan.setup(
            vhost=rabbit.settings.vhost,
            user=rabbit.settings.user,
            password="p",
            new_password=False,
            admin="guest",
        ),
        *plan.add_agent(agent_id, "infra", vhost=rabbit.settings.vhost, password="p"),
    ]
    script = tmp_path / "by-hand.sh"
    script.write_text("\n".join(["set -e", *map(command_of, steps)]))

    done = subprocess.run(
        ["sh", str(script)],
        env=node.command_environment(tmp_path / "bin") | FEW_THREADS,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert done.returncode == 0, done.stderr + done.stdout
    assert await rabbit.apply(steps) == []


async def test_the_delivery_limit_that_is_documented_holds_in_every_queue_beside_the_limits_of_setup(
    rabbit: Rabbit,
) -> None:
    found = DELIVERY_LIMIT.search(SURVIVING.read_text(encoding="utf-8"))
    assert found is not None
    command, name, pattern, definition = found.groups()
    vhost, agent_id = rabbit.settings.vhost, uuid4()
    await rabbit.apply(
        [
            *plan.setup(
                vhost=vhost,
                user=rabbit.settings.user,
                password="p",
                new_password=False,
                admin="guest",
                queue_type=QueueType.QUORUM,
            ),
            *plan.add_agent(agent_id, "infra", vhost=vhost, password="p", queue_type=QueueType.QUORUM),
        ]
    )

    # Versions before 4 know no limit, and so no -1; nor do they tell queues apart by their type.
    limit = definition.replace("-1", "30")
    rabbit.node.ctl(command, "-p", vhost, name, pattern, limit, "--apply-to", "queues")

    queues = {"dead", f"work.infra.{agent_id}", "replies.results", "replies.heartbeats", f"control.{agent_id}"}

    def in_force() -> dict[str, dict[str, object]] | None:
        answer = requests.get(
            f"{rabbit.settings.management_url}/api/queues/{vhost}", auth=("guest", ADMIN_PASSWORD), timeout=30
        )
        held = {one["name"]: dict(one.get("effective_policy_definition") or {}) for one in answer.json()}
        return held if queues <= {name for name, limits in held.items() if limits} else None

    held = await eventually(in_force, timeout=30)
    assert held is not None
    assert {name for name in queues if held[name].get("delivery-limit") != 30} == set()
    assert held["replies.results"]["overflow"] == "reject-publish"


def test_the_command_hands_out_each_credential_once_and_into_a_private_file(
    environment: None, tmp_path: Path, rabbit: Rabbit, capfd: pytest.CaptureFixture[str]
) -> None:
    agent_id, kept = str(uuid4()), tmp_path / "agent.env"

    assert run(["rabbitmq", "setup"]) == Exit.OK
    printed = capfd.readouterr()
    assert run(["rabbitmq", "setup"]) == Exit.OK
    again = capfd.readouterr()
    assert run(["rabbitmq", "add-agent", agent_id, "--type", "gpu", "--write", str(kept)]) == Exit.OK
    added = capfd.readouterr()
    first = kept.read_text()
    assert run(["rabbitmq", "rotate-agent", agent_id, "--write", str(kept)]) == Exit.OK
    capfd.readouterr()
    assert run(["rabbitmq", "remove-agent", agent_id]) == Exit.OK
    removed = capfd.readouterr()

    assert printed.out.startswith(f"CHIFFON_BROKER_URL=amqp://{rabbit.settings.user}:")
    assert again.out == added.out == removed.out == ""
    assert "keeps its password" in again.err
    assert f"changed: user {user_of_agent(agent_id)}" in added.err
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert first.startswith(f"CHIFFON_BROKER_URL=amqp://{user_of_agent(agent_id)}:")
    assert kept.read_text() != first
    assert "revoke its identity" in removed.err


def test_no_command_takes_or_prints_a_password(environment: None, capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chiffon", "rabbitmq", "setup", "--print"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [done.stdout]
    for words in (["setup", "--new-password"], ["add-agent", str(uuid4())], ["rotate-agent", str(uuid4())]):
        assert run(["rabbitmq", *words, "--print"]) == Exit.OK
        printed.append(capfd.readouterr().out)

    for text in printed:
        commands = [line for line in text.splitlines() if "add_user" in line or "change_password" in line]
        assert commands
        assert all(len(line.split()) == 3 for line in commands)
        assert ADMIN_PASSWORD + "\n" not in text
