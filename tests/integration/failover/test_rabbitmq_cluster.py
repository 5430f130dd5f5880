"""Three RabbitMQ nodes with quorum queues, of which any one may be lost."""

import asyncio
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.integration.failover.load import Load
from tests.integration.system.deployment import open_system
from tests.services.rabbitmq_cluster import NODES, Cluster, rabbitmq_cluster
from tests.services.rabbitmq_node import PrivateNode

QUEUES = ("list_queues", "--no-table-headers", "type", "members")


async def copies(node: PrivateNode) -> set[tuple[str, int]]:
    """Return the type of each queue and on how many nodes it is."""
    listed = (await asyncio.to_thread(node.ctl, *QUEUES)).splitlines()
    return {(line.split("\t")[0], line.count("@")) for line in listed if "\t" in line}


async def is_whole(cluster: Cluster) -> bool:
    return await asyncio.to_thread(cluster.running) == NODES


@pytest.mark.xdist_group("own_rabbitmq")
@pytest.mark.timeout(400)
async def test_work_goes_on_after_any_node_of_a_cluster_was_killed(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIFFON_QUEUE_TYPE", "quorum")
    async with rabbitmq_cluster() as cluster:
        assert await is_whole(cluster)
        async with open_system(cluster.url, ledger_url, tmp_path) as system:
            await system.start_agent()
            load = Load(system)
            async with load.running():
                for number, node in enumerate(cluster.nodes, start=1):
                    await load.accepts(3)
                    await asyncio.to_thread(node.kill)
                    await load.recovered(f"node {number} of a cluster, killed")
                    await asyncio.to_thread(node.start)
                    await eventually(lambda: is_whole(cluster), timeout=30)
            assert await copies(cluster.nodes[0]) == {("quorum", NODES)}
            await load.check()
    assert not load.refused
