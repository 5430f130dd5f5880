"""Files are uploaded as a stream, within limits, whole or not at all, and once however often they are sent."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import Message

from common.errors import ErrorCode
from common.rest.identities import Role
from orchestrator.artifacts.store import THREADS
from orchestrator.artifacts.streams import UPLOADS, Stream
from orchestrator.artifacts.uploads import MOST_AT_ONCE, TooManyUploads
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from tests.eventually import eventually
from tests.factories import make_caller
from tests.integration.artifacts.keeping import LIMITS, Keeping, Work, keeping, sha
from tests.integration.artifacts.serving import MAX_BODY_BYTES, app_of, client_of, cut_off

CONTENT = bytes(range(256)) * 30
TYPE = {"content-type": "application/octet-stream"}
ANN, VIEWER = make_caller("ann", Role.OPERATOR), make_caller("viewer", Role.VIEWER)


@pytest.fixture
def app(kept: Keeping) -> FastAPI:
    return app_of(kept, ANN, VIEWER)


@pytest.fixture
async def ann(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, ANN) as client:
        yield client


async def upload(client: httpx2.AsyncClient, content: Any, **headers: str) -> httpx2.Response:
    return await client.post(UPLOADS, content=content, headers=TYPE | headers)


async def in_pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def noted(kept: Keeping) -> list[tuple[str, int, str]]:
    async with kept.pool.acquire() as db:
        return [tuple(row) for row in await db.fetch("SELECT sha256, size, by FROM upload ORDER BY at")]


async def only_left_in(root: Path, files: list[Path]) -> None:
    """Wait until nothing else is left: a draft is removed after the answer."""
    await eventually(lambda: left_in(root) == files)


def left_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=len)
async def test_a_file_is_stored_by_its_digest_and_noted_with_who_sent_it(
    kept: Keeping, ann: httpx2.AsyncClient, content: bytes
) -> None:
    answer = await upload(ann, content)

    assert (answer.status_code, answer.json()) == (200, {"sha256": sha(content), "size": len(content)})
    assert kept.blob(content).read_bytes() == content
    assert await noted(kept) == [(sha(content), len(content), "ann")]


async def test_a_file_may_be_larger_than_any_other_body_and_come_without_its_length(
    kept: Keeping, ann: httpx2.AsyncClient
) -> None:
    assert len(CONTENT) > MAX_BODY_BYTES

    answer = await upload(ann, in_pieces(CONTENT))

    assert answer.json()["sha256"] == sha(CONTENT)
    assert kept.blob(CONTENT).read_bytes() == CONTENT


async def test_the_same_file_is_one_upload_of_whoever_sent_it_first(kept: Keeping, app: FastAPI) -> None:
    bob = make_caller("bob", Role.OPERATOR)
    async with client_of(app_of(kept, ANN, bob), ANN) as first, client_of(app_of(kept, ANN, bob), bob) as second:
        answers = [await upload(client, CONTENT) for client in (first, second, first)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert await noted(kept) == [(sha(CONTENT), len(CONTENT), "ann")]
    await only_left_in(kept.root, [kept.blob(CONTENT)])


async def test_each_upload_is_told_with_who_sent_it_and_one_that_is_refused_is_not(kept: Keeping) -> None:
    bob, trace_id = make_caller("bob", Role.OPERATOR), uuid4()
    large = b"x" * (LIMITS.one + 1)
    app = app_of(kept, ANN, bob)
    async with client_of(app, ANN) as first, client_of(app, bob) as second:
        await upload(first, CONTENT, **{"x-trace-id": str(trace_id)})
        await upload(second, CONTENT)
        await upload(second, large)

    told = await kept.events(Kind.ARTIFACT_UPLOADED)

    assert [(event.actor, event.data) for event in told] == [
        (name, {"sha256": sha(CONTENT), "size": len(CONTENT)}) for name in ("ann", "bob")
    ]
    assert told[0].trace_id == trace_id
    assert told[1].trace_id not in (None, trace_id)


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_file_has_up_to_the_limit_and_leaves_nothing_behind_beyond(
    kept: Keeping, ann: httpx2.AsyncClient, has_length: bool
) -> None:
    fits, large = bytes(LIMITS.one), b"x" * (LIMITS.one + 1)

    answers = [await upload(ann, one if has_length else in_pieces(one)) for one in (fits, large)]

    assert [answer.status_code for answer in answers] == [200, 413]
    assert answers[1].json()["error_code"] == ErrorCode.ARTIFACT_TOO_LARGE
    assert answers[1].json()["error_message"] == "The body is too large: at most 10000 bytes are kept of one file."
    await settled(kept)
    await only_left_in(kept.root, [kept.blob(fits)])


async def settled(kept: Keeping) -> None:
    """Return when the store has done what nobody waits for: when all of its threads are free."""
    together = threading.Barrier(THREADS)
    await asyncio.gather(*(kept.parts.service._store.run(together.wait) for _ in range(THREADS)))


async def test_a_file_that_is_announced_as_too_large_is_not_even_read(kept: Keeping) -> None:
    async def never() -> Message:
        raise AssertionError("it is read")

    stream = Stream(never, Headers({**TYPE, "content-length": str(LIMITS.one + 1)}))

    with pytest.raises(Exception, match="too large"):
        await kept.parts.uploads.store(stream, by="ann", trace_id=uuid4())


async def test_a_store_that_is_full_by_its_limit_takes_no_more_and_artifacts_count(
    pool: Pool, tmp_path: Path, work: Work
) -> None:
    async with keeping(pool, tmp_path, limits=replace(LIMITS, all=500)) as kept:
        await kept.keep(work, bytes(300))
        async with client_of(app_of(kept, ANN), ANN) as ann:
            fits, full = await upload(ann, bytes(200)), await upload(ann, in_pieces(b"x"))

    assert (fits.status_code, full.status_code) == (200, 413)
    assert full.json()["error_message"].startswith("There is no room for it: the store holds 500 bytes")


async def test_a_body_that_is_cut_off_leaves_nothing(kept: Keeping, app: FastAPI) -> None:
    await cut_off(app, ANN, UPLOADS, CONTENT[:1000], CONTENT[1000:2000])
    await settled(kept)

    await only_left_in(kept.root, [])
    assert await noted(kept) == []


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"content-type": "application/json"}, "header.content-type"),
        ({"content-type": "multipart/form-data; boundary=x"}, "header.content-type"),
        ({"content-encoding": "gzip"}, "header.content-encoding"),
    ],
    ids=str,
)
async def test_what_is_not_sent_as_it_is_is_refused(
    kept: Keeping, ann: httpx2.AsyncClient, headers: dict[str, str], field: str
) -> None:
    answer = await upload(ann, b"{}", **headers)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert await noted(kept) == []


async def test_who_may_not_dispatch_uploads_nothing(kept: Keeping, app: FastAPI) -> None:
    async with client_of(app, VIEWER) as viewer, client_of(app) as nobody:
        answers = [await upload(client, CONTENT) for client in (viewer, nobody)]

    assert [answer.status_code for answer in answers] == [403, 401]
    assert not kept.root.exists()


async def test_a_parameter_that_is_not_known_is_refused(ann: httpx2.AsyncClient) -> None:
    answer = await ann.post(f"{UPLOADS}?name=x", content=b"x", headers=TYPE)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.name")


async def test_on_a_full_disk_an_upload_may_be_tried_again(
    kept: Keeping, ann: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        refused = await upload(ann, CONTENT)
    again = await upload(ann, CONTENT)

    assert (refused.status_code, refused.json()["error_code"]) == (503, ErrorCode.UNAVAILABLE)
    assert refused.headers["retry-after"] == "1"
    assert again.status_code == 200
    await settled(kept)
    await only_left_in(kept.root, [kept.blob(CONTENT)])


async def test_so_many_uploads_are_under_way_and_no_more(kept: Keeping) -> None:
    go_on = asyncio.Event()

    async def slow() -> Message:
        await go_on.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    def store() -> Any:
        return kept.parts.uploads.store(Stream(slow, Headers(TYPE)), by="ann", trace_id=uuid4())

    under_way = [asyncio.create_task(store()) for _ in range(MOST_AT_ONCE)]
    while len(list((kept.root / "drafts").glob("*"))) < MOST_AT_ONCE:
        await asyncio.sleep(0.01)

    with pytest.raises(TooManyUploads):
        async with asyncio.timeout(10):
            await store()

    go_on.set()
    done = await asyncio.gather(*under_way)
    assert {one.sha256 for one in done} == {sha(b"x")}
    assert (await store()).size == 1


async def test_an_upload_that_is_given_up_leaves_nothing(kept: Keeping) -> None:
    began = asyncio.Event()

    async def hangs() -> Message:
        if began.is_set():
            await asyncio.Event().wait()
        began.set()
        return {"type": "http.request", "body": CONTENT, "more_body": True}

    given_up = asyncio.create_task(kept.parts.uploads.store(Stream(hangs, Headers(TYPE)), by="ann", trace_id=uuid4()))
    await began.wait()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await settled(kept)

    await only_left_in(kept.root, [])
