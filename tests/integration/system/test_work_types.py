"""An executor of one's own on a real agent: offered, listed with its schema, and run."""

from pathlib import Path

import pytest
from examples.count_words import CountWords, CountWordsParameters

from chiffon.client import Client
from common.rest.work_types import KnownWorkType
from tests.architecture.source import ROOT
from tests.eventually import eventually
from tests.integration.system.deployment import agent_here, open_system

COUNTING = "examples.count_words:CountWords"
ROUTES = {"echo": "infra", CountWords.kind: "infra"}


async def offered(client: Client) -> KnownWorkType | None:
    """Return what is known of the example once an agent offers it."""
    [known] = [known for known in await client.work_types() if known.name == CountWords.kind]
    return known if known.agents else None


@pytest.mark.parametrize("way", ["bus", "http"])
async def test_an_executor_of_ones_own_is_listed_checked_by_its_agent_and_run(
    amqp_url: str, ledger_url: str, tmp_path: Path, way: str
) -> None:
    async with open_system(amqp_url, ledger_url, tmp_path, routes=ROUTES) as system:
        client = system.client
        url = amqp_url if way == "bus" else f"http://127.0.0.1:{system.settings.port}"
        [before] = [known for known in await client.work_types() if known.name == CountWords.kind]
        async with agent_here(url, tmp_path / "agent", executors=COUNTING):
            known = await eventually(lambda: offered(client), timeout=30)
            [agent] = await system.agents_online()
            good = await client.dispatch(CountWords.kind, {"text": "the cat and the dog"})
            bad = await client.dispatch(CountWords.kind, {"txt": "x"})
            long = await client.dispatch(CountWords.kind, {"text": "x", "pause_seconds": 3600})
            done, refused = await system.finished(good.task_id, bad.task_id)
            await eventually(lambda: _is_running(client, long.task_id))
            await client.cancel(long.task_id)
            later = await client.dispatch("echo", {"message": "after"})
            await system.finished(later.task_id)
            again = await eventually(lambda: offered(client))

    assert (before.pool, before.parameters, before.agents) == ("infra", None, [])
    assert known is not None
    assert known.parameters == CountWordsParameters.model_json_schema()
    assert (known.pool, known.description, known.checked) == ("infra", "Count the words of a text.", False)
    assert [one.agent_id for one in known.agents] == [agent.agent_id]
    assert agent.labels["languages"] == ["en", "de"]
    assert (done.status, done.output) == ("completed", "5 words\n")
    assert (refused.status, refused.error_code) == ("failed", 1002)
    assert "text: " in str(refused.error_message)
    # Heartbeats that say no more of it do not make it forgotten.
    assert again == known


async def _is_running(client: Client, task_id: object) -> bool:
    return (await client.status(str(task_id))).status == "running"


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "how-to" / "add-an-executor.md").read_text(encoding="utf-8")

    assert (ROOT / "examples" / "count_words.py").read_text(encoding="utf-8") in page
