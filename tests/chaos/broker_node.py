"""A RabbitMQ node that can be killed and started again."""

import asyncio
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

from tests.services.rabbitmq import WHAT_TO_INSTALL, find_or_install
from tests.services.rabbitmq_node import PrivateNode, ServiceUnavailable, _wait_for_port

USER = "chaos"
MAKE_HOSTS = """
rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{password}">>, <<"tests">>),
lists:foreach(
  fun(N) ->
    Name = <<"chaos-", (integer_to_binary(N))/binary>>,
    rabbit_vhost:add(Name, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(<<"{user}">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
  end, lists:seq(1, {count})).
"""
GONE_SECONDS = 10
# What the node has by default.
DISK_LIMIT, MEMORY_LIMIT = "50MB", "0.4"


class ChaosNode(PrivateNode):
    """See `PrivateNode`. Its users get in with a password that must never be seen in a log."""

    password = ""

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def prepare(self, *, hosts: int = 1) -> None:
        """Make virtual hosts, and a user who may enter them."""
        self.password = f"secret-{secrets.token_hex(12)}"
        self.evaluate(MAKE_HOSTS.format(user=USER, password=self.password, count=hosts))
        self._hosts = [f"chaos-{number}" for number in range(hosts, 0, -1)]

    def unused_host(self) -> str:
        """Return a virtual host with nothing in it."""
        return self._hosts.pop()

    def kill(self) -> None:
        """End the node as a crash of the machine would, as far as its processes go."""
        node = self._processes.pop()
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        # What was waited for is the script that started the node; the node itself goes a moment later.
        deadline = time.monotonic() + GONE_SECONDS
        while self._is_there():
            assert time.monotonic() < deadline, "the killed node still listens"

    def stop(self) -> None:
        if len(self._processes) > 1:
            self.kill()  # nobody needs its data any more, and a shutdown in order takes seconds
        super().stop()

    def start_again(self) -> None:
        for last in (False, False, True):
            self._run([str(self._scripts / "rabbitmq-server")])
            try:
                # Opening its port is the last step of its start.
                _wait_for_port(self.address[1], self._processes[-1])
            except RuntimeError:  # the name of the killed node is still taken
                if last:
                    raise
                self.kill()
            else:
                return

    def _is_there(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True

    async def control(self, *arguments: str) -> str:
        """Run rabbitmqctl without holding anybody up."""
        return await asyncio.to_thread(self.ctl, *arguments)


def start_broker_node() -> ChaosNode:
    """Start a node of our own, whatever the environment names: it is going to suffer."""
    scripts = find_or_install()
    if scripts is None:
        raise ServiceUnavailable(WHAT_TO_INSTALL)
    return ChaosNode(scripts)
