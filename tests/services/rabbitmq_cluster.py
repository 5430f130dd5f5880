"""Three RabbitMQ nodes in a cluster, on the loopback interface, with an epmd of their own."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.services.ports import free_ports
from tests.services.rabbitmq import find_or_install
from tests.services.rabbitmq_node import Member, PrivateNode, ServiceUnavailable, epmd_command, node_name

NODES = 3
COOKIE = "chiffon-failover-tests"


class Cluster:
    """The nodes, and the URL that names them all."""

    def __init__(self, nodes: list[PrivateNode]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        hosts = ",".join(node.url.partition("@")[2].rstrip("/") for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def running(self) -> int:
        """Return how many nodes the first one that runs sees in the cluster."""
        return int(self.nodes[0].evaluate("length(rabbit_nodes:all_running())."))


@asynccontextmanager
async def rabbitmq_cluster() -> AsyncIterator[Cluster]:
    """Start the nodes side by side; they find each other by a list in their configuration."""
    scripts = await asyncio.to_thread(find_or_install)
    if scripts is None:
        raise ServiceUnavailable("A cluster needs an installed RabbitMQ: apt-get install rabbitmq-server")
    ports, [epmd] = free_ports(NODES), free_ports(1)
    with ExitStack() as stack:
        process = subprocess.Popen(epmd_command(epmd), stdin=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        names = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node_name(port)}\n"
            for number, port in enumerate(ports, start=1)
        )
        configuration = f"cluster_formation.peer_discovery_backend = classic_config\n{names}"

        def start(port: int, scripts: Path = scripts) -> PrivateNode:
            return PrivateNode(scripts, configuration=configuration, member=Member(port, epmd, COOKIE))

        starting = await asyncio.gather(*(asyncio.to_thread(start, port) for port in ports), return_exceptions=True)
        nodes = [node for node in starting if isinstance(node, PrivateNode)]
        for node in nodes:
            stack.callback(node.stop)
        for failure in starting:
            if isinstance(failure, BaseException):
                raise failure
        yield Cluster(nodes)
