"""A RabbitMQ node that can be killed and started again."""

import asyncio
import os
import signal
from urllib.parse import urlsplit

from tests.services.rabbitmq import WHAT_TO_INSTALL, _install, find_scripts
from tests.services.rabbitmq_node import PrivateNode, ServiceUnavailable, _wait_for_port

USER = "chaos"
ADD_USER = """
rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{password}">>, <<"tests">>),
rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""
# What the node has by default.
DISK_LIMIT, MEMORY_LIMIT = "50MB", "0.4"


class ChaosNode(PrivateNode):
    """See `PrivateNode`. Its users get in with a password that must never be seen in a log."""

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def add_user(self, password: str) -> None:
        self.ctl("eval", ADD_USER.format(user=USER, password=password))

    def kill(self) -> None:
        """End the node as a crash of the machine would, as far as its processes go."""
        node = self._processes.pop()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def start_again(self) -> None:
        self._run([str(self._scripts / "rabbitmq-server")])
        _wait_for_port(self.address[1], self._processes[-1])
        self.ctl("await_startup")

    async def control(self, *arguments: str) -> str:
        """Run rabbitmqctl without holding anybody up."""
        return await asyncio.to_thread(self.ctl, *arguments)


def start_broker_node() -> ChaosNode:
    """Start a node of our own, whatever the environment names: it is going to suffer."""
    scripts = find_scripts() or _install()
    if scripts is None:
        raise ServiceUnavailable(WHAT_TO_INSTALL)
    return ChaosNode(scripts)
