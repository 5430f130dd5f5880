"""Artifacts over HTTP: listed with links, read with a token or by a link, whole or in part, and never as a page."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI

from common.errors import ErrorCode
from common.rest.artifacts import ArtifactList
from common.rest.identities import Role
from orchestrator.artifacts.model import Artifact
from tests.factories import make_caller
from tests.integration.artifacts.keeping import Keeping, Work, cut, sha
from tests.integration.artifacts.serving import app_of, client_of

CONTENT = bytes(range(256)) * 30
NAME = "dist/été & more#1?.whl"
VIEWER, WORKER, DISPATCHER = (
    make_caller("viewer", Role.VIEWER),
    make_caller("worker", Role.AGENT),
    make_caller("operator", Role.OPERATOR),
)


@pytest.fixture
def app(kept: Keeping) -> FastAPI:
    return app_of(kept, VIEWER, WORKER, DISPATCHER)


@pytest.fixture
async def viewer(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, VIEWER) as client:
        yield client


@pytest.fixture
async def nobody(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def artifact(kept: Keeping, work: Work) -> Artifact:
    return await kept.keep(work, CONTENT, NAME, type="file")


async def link_to(viewer: httpx2.AsyncClient, artifact: Artifact) -> str:
    answer = await viewer.get(f"/api/v1/tasks/{artifact.task_id}/artifacts")
    found = ArtifactList.model_validate(answer.json())
    [link] = [one.link for one in found.items if one.artifact_id == artifact.artifact_id]
    assert link is not None
    return link


def code_of(answer: httpx2.Response) -> tuple[int, int]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["error_code"]


async def test_what_a_task_keeps_is_listed_with_what_is_missing(
    kept: Keeping, work: Work, viewer: httpx2.AsyncClient, artifact: Artifact
) -> None:
    await kept.send(work, *cut(bytes(10_001), "large", size=5000), cut(CONTENT, "open")[0])

    answer = await viewer.get(f"/api/v1/tasks/{work.task_id}/artifacts")

    assert answer.status_code == 200
    there, large, still_open = answer.json()["items"]
    assert there.pop("link").startswith(f"/artifacts/{artifact.artifact_id}/{quote(NAME)}?expires=")
    assert {name: there[name] for name in ("artifact_id", "task_id", "attempt", "name", "path", "type")} == {
        "artifact_id": str(artifact.artifact_id),
        "task_id": str(work.task_id),
        "attempt": 1,
        "name": NAME,
        "path": NAME,
        "type": "file",
    }
    assert (there["sha256"], there["size"], there["missing"]) == (sha(CONTENT), len(CONTENT), None)
    assert (large["stored_at"], large["link"], large["missing"][:20]) == (None, None, "it has 10001 bytes, ")
    assert (still_open["stored_at"], still_open["link"], still_open["missing"]) == (None, None, None)


async def test_a_task_that_does_not_exist_has_no_list(viewer: httpx2.AsyncClient) -> None:
    answer = await viewer.get(f"/api/v1/tasks/{uuid4()}/artifacts")

    assert code_of(answer) == (404, ErrorCode.TASK_NOT_FOUND)


async def test_a_content_is_read_with_a_token(viewer: httpx2.AsyncClient, artifact: Artifact) -> None:
    answer = await viewer.get(f"/api/v1/artifacts/{artifact.artifact_id}")

    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["etag"] == f'"{sha(CONTENT)}"'
    assert headers["content-disposition"].startswith("attachment; filename=\"_t____more_1_.whl\"; filename*=UTF-8''")
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers.get_list("x-content-type-options") == ["nosniff"]


async def test_a_part_is_read_and_what_the_client_has_is_not(viewer: httpx2.AsyncClient, artifact: Artifact) -> None:
    path = f"/api/v1/artifacts/{artifact.artifact_id}"

    part = await viewer.get(path, headers={"range": "bytes=-10"})
    none = await viewer.get(path, headers={"range": "bytes=99999-"})
    same = await viewer.get(path, headers={"if-none-match": part.headers["etag"]})

    assert (part.status_code, part.content) == (206, CONTENT[-10:])
    assert part.headers["content-range"] == f"bytes 7670-7679/{len(CONTENT)}"
    assert code_of(none) == (416, ErrorCode.INVALID_REQUEST)
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize("by_link", [False, True])
async def test_a_head_has_the_headers_of_the_content_and_no_content(
    viewer: httpx2.AsyncClient, nobody: httpx2.AsyncClient, artifact: Artifact, by_link: bool
) -> None:
    if by_link:
        answer = await nobody.head(await link_to(viewer, artifact))
    else:
        answer = await viewer.head(f"/api/v1/artifacts/{artifact.artifact_id}")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


async def test_a_link_is_followed_without_a_token_until_it_expires(
    kept: Keeping, viewer: httpx2.AsyncClient, nobody: httpx2.AsyncClient, artifact: Artifact
) -> None:
    link = await link_to(viewer, artifact)

    whole = await nobody.get(link)
    part = await nobody.get(link, headers={"range": "bytes=0-4"})
    kept.clock.advance(seconds=timedelta(minutes=15).total_seconds())
    late = await nobody.get(link)

    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[:5])
    assert code_of(late) == (403, ErrorCode.FORBIDDEN)
    assert late.json()["error_message"] == "This link has expired: list the artifacts again for a new one."


async def test_a_link_that_was_changed_opens_nothing(
    kept: Keeping, work: Work, viewer: httpx2.AsyncClient, nobody: httpx2.AsyncClient, artifact: Artifact
) -> None:
    other, link = await kept.keep(work, b"other", "other"), await link_to(viewer, artifact)
    path, _, query = link.partition("?")

    changed = [
        link.replace(str(artifact.artifact_id), str(other.artifact_id)),
        f"/artifacts/{other.artifact_id}/other?{query}",
        f"/artifacts/{artifact.artifact_id}/other?{query}",
        f"{path}/..%2Fother?{query}",
        f"{link}0",
        f"{link}&expires=9999999999",
        f"{link}&x=1",
        f"{path}?signature={query.rpartition('=')[2]}",
    ]
    answers = [await nobody.get(one) for one in changed]

    assert [code_of(answer) for answer in answers] == [(403, ErrorCode.FORBIDDEN)] * len(changed)
    assert all("was changed" in answer.json()["error_message"] for answer in answers)


async def test_a_link_without_its_signature_needs_a_token_that_may_read(
    app: FastAPI, viewer: httpx2.AsyncClient, nobody: httpx2.AsyncClient, artifact: Artifact
) -> None:
    path = f"/artifacts/{artifact.artifact_id}/{quote(NAME)}"

    with_token = await viewer.get(path)
    other_name = await viewer.get(f"/artifacts/{artifact.artifact_id}/other")
    without = await nobody.get(path)
    async with client_of(app, WORKER) as worker:
        not_allowed = await worker.get(path)

    assert (with_token.status_code, with_token.content) == (200, CONTENT)
    assert code_of(other_name) == (404, ErrorCode.ARTIFACT_NOT_FOUND)
    assert code_of(without) == (401, ErrorCode.UNAUTHENTICATED)
    assert code_of(not_allowed) == (403, ErrorCode.FORBIDDEN)


@pytest.mark.parametrize("path", ["/api/v1/artifacts/{}", "/api/v1/tasks/{}/artifacts"])
async def test_nothing_is_read_without_a_token_or_the_permission(
    app: FastAPI, nobody: httpx2.AsyncClient, artifact: Artifact, path: str
) -> None:
    async with client_of(app, WORKER) as worker:
        not_allowed = await worker.get(path.format(artifact.artifact_id))

    assert code_of(await nobody.get(path.format(artifact.artifact_id))) == (401, ErrorCode.UNAUTHENTICATED)
    assert code_of(not_allowed) == (403, ErrorCode.FORBIDDEN)


async def test_what_cannot_be_read_says_why(
    kept: Keeping, work: Work, viewer: httpx2.AsyncClient, artifact: Artifact
) -> None:
    await kept.send(work, *cut(bytes(10_001), "large", size=5000))
    large = (await kept.of(work))["large"]

    async def read(of: Any) -> httpx2.Response:
        return await viewer.get(f"/api/v1/artifacts/{of}")

    unknown, not_there = await read(uuid4()), await read(large.artifact_id)
    kept.blob(CONTENT).unlink()
    gone = await read(artifact.artifact_id)
    kept.root.rename(kept.root.with_name("elsewhere"))
    away = await read(artifact.artifact_id)

    assert [code_of(one) for one in (unknown, not_there, gone)] == [(404, ErrorCode.ARTIFACT_NOT_FOUND)] * 3
    assert "is not there: it has 10001 bytes" in not_there.json()["error_message"]
    assert "is gone from the store" in gone.json()["error_message"]
    assert code_of(away) == (503, ErrorCode.UNAVAILABLE)
    assert away.json()["error_message"] == "The store is away: No such file or directory."


@pytest.mark.parametrize("path", ["/api/v1/artifacts/x", "/api/v1/tasks/x/artifacts", "/artifacts/x/y"])
async def test_what_is_no_id_is_refused(viewer: httpx2.AsyncClient, path: str) -> None:
    assert code_of(await viewer.get(path)) == (422, ErrorCode.INVALID_REQUEST)
