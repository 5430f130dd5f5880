"""Nobody speaks to a server whose certificate is not trusted, nor RabbitMQ to a client without one."""

import asyncio
import gc
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from chiffon.client import Client
from chiffon.errors import ServerUnreachable
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.connect import open_broker
from common.broker.topology import work_queue
from common.config import SharedSettings
from common.errors import StartupRefused
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.integration.system.deployment import orchestrator
from tests.services.certificates import Authority, Certificate
from tests.services.ports import free_ports
from tests.services.rabbitmq import find_scripts
from tests.services.rabbitmq_node import PrivateNode

MEMORY = SharedSettings(broker_url="memory://")
CERTIFICATE_USER = "agent-by-certificate"
MAKE_USER = """
rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"unused">>, <<"tests">>),
rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""

# The tests that use it stay in one worker, so that it is started once.
with_rabbitmq = pytest.mark.xdist_group("system/tls")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> Certificate:
    return authority.issue("server")


@pytest.fixture(scope="module")
def tls_url(authority: Authority, served: Certificate) -> Iterator[str]:
    """The address of a RabbitMQ that speaks TLS and asks everybody for a certificate."""
    scripts, [port] = find_scripts(), free_ports(1)
    assert scripts is not None
    configuration = "\n".join(
        [
            f"listeners.ssl.1 = 127.0.0.1:{port}",
            f"ssl_options.cacertfile = {authority.ca}",
            f"ssl_options.certfile = {served.cert}",
            f"ssl_options.keyfile = {served.key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
            "ssl_cert_login_from = common_name",
            "auth_mechanisms.1 = PLAIN",
            "auth_mechanisms.2 = EXTERNAL",
            "",
        ]
    )
    node = PrivateNode(scripts, plugins=("rabbitmq_auth_mechanism_ssl",), configuration=configuration)
    node.evaluate(MAKE_USER.format(user=CERTIFICATE_USER))
    yield f"127.0.0.1:{port}"
    node.stop()


def tls(authority: Authority, certificate: Certificate) -> str:
    return f"cafile={authority.ca}&certfile={certificate.cert}&keyfile={certificate.key}"


@with_rabbitmq
@pytest.mark.parametrize("by_certificate", [False, True], ids=["password", "certificate"])
async def test_a_broker_over_tls_is_used_with_a_certificate_and_knows_who_sends(
    tls_url: str, authority: Authority, *, by_certificate: bool
) -> None:
    certificate = authority.issue(CERTIFICATE_USER)
    who, how = (CERTIFICATE_USER, "auth=external&") if by_certificate else ("guest:guest", "")
    url = f"amqps://{who}@{tls_url}/?{how}{tls(authority, certificate)}"
    queue = work_queue("tls", uuid4())

    async with open_broker(url, name="test") as broker:
        await broker.declare(queue)
        await broker.publish(Outgoing(queue.bindings[0], b"secret", "test"))
        async with broker.consume(queue.name, prefetch=1) as consumer:
            [delivery] = await consumer.receive()
            await consumer.ack(delivery)

    assert delivery.body == b"secret"
    assert delivery.sender == who.split(":")[0]


@with_rabbitmq
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited")
async def test_a_broker_is_not_used_without_a_certificate_or_with_one_that_nobody_trusts(
    tls_url: str, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    urls = [
        f"amqps://guest:guest@{tls_url}/?cafile={authority.ca}",
        f"amqps://guest:guest@{tls_url}/?{tls(authority, stranger.issue('stranger'))}",
        f"amqps://guest:guest@{tls_url}/?{tls(stranger, authority.issue('known'))}",
    ]
    for url in urls:
        with pytest.raises(BrokerUnavailable):
            async with open_broker(url, name="test"):
                pass
    gc.collect()  # here, and not in a test that asks for no patience: the library forgets to await a coroutine


async def test_the_orchestrator_serves_https_to_those_who_trust_its_authority(
    ledger_url: str, authority: Authority, served: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = OrchestratorSettings(
        database_url=ledger_url,
        port=free_ports(1)[0],
        authentication="off",
        tls_cert_file=served.cert,
        tls_key_file=served.key,
    )
    url = f"https://127.0.0.1:{settings.port}"
    async with orchestrator(settings, MEMORY):
        with pytest.raises(ServerUnreachable, match=r"(?i)certificate"):
            async with Client(url) as client:
                await client.agents()
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        async with httpx2.AsyncClient(verify=trusting, trust_env=False) as http:
            assert (await http.get(f"{url}/health")).status_code == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        async with Client(url) as client:
            assert await client.agents() == []
            task = await client.dispatch("echo", {"message": "x"})
            await client.cancel(task.task_id)
            assert (await client.wait(task.task_id)).status == "cancelled"


@pytest.mark.parametrize("missing", ["tls_cert_file", "tls_key_file", "both"])
async def test_half_a_certificate_or_none_that_can_be_read_stops_the_start(
    ledger_url: str, served: Certificate, tmp_path: Path, missing: str
) -> None:
    files: dict[str, Any] = {"tls_cert_file": served.cert, "tls_key_file": served.key}
    if missing == "both":
        files = dict.fromkeys(files, tmp_path / "nowhere")
    else:
        del files[missing]
    settings = OrchestratorSettings(database_url=ledger_url, port=0, **files)

    with pytest.raises(StartupRefused, match=r"CHIFFON_TLS_CERT_FILE.*CHIFFON_TLS_KEY_FILE"):
        async with asyncio.timeout(30):
            await serve(settings, MEMORY, stop=asyncio.Event())
