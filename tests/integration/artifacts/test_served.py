"""Artifacts through a real server: large bodies pass as a stream, refusals arrive, and links need no token."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from common.errors import ErrorCode
from common.rest.artifacts import ArtifactList
from common.rest.identities import Role
from orchestrator.artifacts.streams import UPLOADS
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService
from tests.integration.artifacts.keeping import Work, keeping, sha
from tests.integration.identities.conftest import Site, guarded

MIB = 1024 * 1024
TYPE = {"content-type": "application/octet-stream"}


@pytest.fixture
async def site(ledger_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    """An orchestrator that asks for tokens and keeps at most 20 MiB of a file."""
    settings = {"artifacts_dir": tmp_path / "artifacts", "max_artifact_bytes": 20 * MIB, "max_body_bytes": MIB}
    async with guarded(ledger_url, **settings) as url, AsyncExitStack() as stack:
        yield Site(url, IdentityService(pool), pool, stack)


async def blocks(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * MIB


async def test_a_file_larger_than_any_other_body_is_uploaded_as_a_stream(site: Site, tmp_path: Path) -> None:
    ann = await site.somebody(Role.OPERATOR)
    content = b"".join([block async for block in blocks(20)])

    answer = await ann.post(UPLOADS, content=blocks(20), headers=TYPE)

    assert (answer.status_code, answer.json()) == (200, {"sha256": sha(content), "size": len(content)})
    assert (tmp_path / "artifacts" / "blobs" / sha(content)[:2] / sha(content)).read_bytes() == content


async def test_who_sends_too_much_or_may_not_send_is_told_so(site: Site) -> None:
    ann, viewer = await site.somebody(Role.OPERATOR), await site.somebody(Role.VIEWER)

    too_large = await ann.post(UPLOADS, content=bytes(21 * MIB), headers=TYPE)
    without_length = await ann.post(UPLOADS, content=blocks(21), headers=TYPE)
    forbidden = await viewer.post(UPLOADS, content=blocks(5), headers=TYPE)
    again = await ann.post(UPLOADS, content=b"small", headers=TYPE)

    assert [answer.status_code for answer in (too_large, without_length, forbidden, again)] == [413, 413, 403, 200]
    assert too_large.json()["error_code"] == ErrorCode.ARTIFACT_TOO_LARGE


async def test_every_other_body_has_its_small_limit_still(site: Site) -> None:
    ann = await site.somebody(Role.OPERATOR)

    answer = await ann.post("/api/v1/dispatch", content=bytes(2 * MIB), headers={"content-type": "application/json"})

    assert answer.status_code == 413


async def test_what_an_agent_kept_is_listed_and_read_by_its_link_without_a_token(
    site: Site, work: Work, tmp_path: Path
) -> None:
    viewer, nobody = await site.somebody(Role.VIEWER), await site.client(None)
    async with keeping(site.pool, tmp_path / "artifacts", links_last=timedelta(days=1)) as kept:
        await kept.keep(work, b"hello", "out/été 100%.txt")

    [found] = ArtifactList.model_validate((await viewer.get(f"/api/v1/tasks/{work.task_id}/artifacts")).json()).items
    assert found.link is not None
    by_link = await nobody.get(found.link)
    broken = await nobody.get(found.link + "0")
    without = await nobody.get(found.link.partition("?")[0])

    assert (by_link.status_code, by_link.content) == (200, b"hello")
    assert by_link.headers.get_list("x-content-type-options") == ["nosniff"]
    assert [(one.status_code, one.json()["error_code"]) for one in (broken, without)] == [
        (403, ErrorCode.FORBIDDEN),
        (401, ErrorCode.UNAUTHENTICATED),
    ]


def parts_of(path: str) -> Iterator[str]:
    """Yield a path written in other ways that a server unescapes to the same one, or to one with a way up."""
    folder, _, name = path.rpartition("/")
    yield f"{folder}/{''.join(f'%{byte:02x}' for byte in name.encode())}"
    yield f"{folder}/%2e%2e/{name}"
    yield f"{folder}//{name}"
    yield f"{folder}/./{name}"


async def test_a_link_whose_path_is_written_in_another_way_is_that_link_or_none(
    site: Site, work: Work, tmp_path: Path
) -> None:
    viewer = await site.somebody(Role.VIEWER)
    async with keeping(site.pool, tmp_path / "artifacts") as kept:
        await kept.keep(work, b"hello", "a.log")
    answer = await viewer.get(f"/api/v1/tasks/{work.task_id}/artifacts")
    path, _, query = answer.json()["items"][0]["link"].partition("?")

    statuses = [await status_of(site.url, f"{one}?{query}") for one in parts_of(path)]

    assert statuses == [200, 403, 403, 403]


async def status_of(url: str, target: str) -> int:
    """Send a request whose path no client has changed."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {target} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])
