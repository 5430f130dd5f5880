"""A signed path counts for exactly what it names until it expires, and for nothing else."""

import hashlib
import hmac
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import pytest
from starlette.types import Scope

from common.errors import ErrorCode
from common.rest.identities import Permission, Role
from orchestrator.artifacts.links import HOLDER, LinkKeeper, LinkRefused, Links
from orchestrator.http.connections import CONNECTION, Connections
from orchestrator.http.errors import status_of
from orchestrator.identities.door import Door, EverybodyOfThisHost, Keeper
from orchestrator.identities.model import ANYBODY, Caller, Unauthenticated
from tests.factories import make_caller
from tests.fakes.clock import FakeClock

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ID = UUID("7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11")
LASTS = timedelta(minutes=15)
NAMES = ["build.log", "dist/a b+c&d=e?f#g%h.whl", "été/☂", "a;b", "%2e%2e"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def links(clock: FakeClock) -> Links:
    return Links(KEY, clock, lasts=LASTS)


def parts(link: str) -> tuple[str, str]:
    """Return path and query of a link as a server gives them to the app: only the path is unescaped."""
    path, _, query = link.partition("?")
    return unquote(path), query


def refused(links: Links, path: str, query: str) -> str:
    with pytest.raises(LinkRefused) as caught:
        links.check(path, query)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_counts_until_it_expires(links: Links, clock: FakeClock, name: str) -> None:
    path, query = parts(links.path_to(ID, name))

    clock.advance(seconds=LASTS.total_seconds() - 1)
    links.check(path, query)
    clock.advance(seconds=1)

    assert refused(links, path, query) == "This link has expired: list the artifacts again for a new one."
    assert path == f"/artifacts/{ID}/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_a_url_that_clients_send_as_it_is(links: Links, name: str) -> None:
    link = links.path_to(ID, name)

    assert link.isascii()
    assert urlsplit(link).path == f"/artifacts/{ID}/{quote(name)}"
    assert urlsplit(link).fragment == ""


def test_the_signature_is_what_is_documented(links: Links, clock: FakeClock) -> None:
    expires = int((clock.now() + LASTS).timestamp())
    said = f"chiffon artifact link\n{ID}\n{expires}\na/b".encode()

    link = links.path_to(ID, "a/b")

    assert link == f"/artifacts/{ID}/a/b?expires={expires}&signature={hmac.new(KEY, said, hashlib.sha256).hexdigest()}"


def changed(link: str) -> dict[str, tuple[str, str]]:
    """Return what can be made of a link, each as path and query, none of which counts."""
    path, query = parts(link)
    expires, signature = (pair.split("=")[1] for pair in query.split("&"))
    flipped = f"{signature[:-1]}{'0' if signature[-1] != '0' else '1'}"
    return {
        "another artifact": (path.replace("7f3c", "7f3d"), query),
        "another name": (path + "x", query),
        "a shorter name": (path[:-1], query),
        "a name in a folder": (path.replace("build", "a/build"), query),
        "a way up": (f"/artifacts/{ID}/x/../build.log", query),
        "no name": (f"/artifacts/{ID}/", query),
        "no name at all": (f"/artifacts/{ID}", query),
        "another prefix": (path.replace("/artifacts/", "/api/v1/artifacts/"), query),
        "upper case": (path.replace("7f3c", "7F3C"), query),
        "no hyphens": (path.replace(str(ID), ID.hex), query),
        "braces": (path.replace(str(ID), f"{{{ID}}}"), query),
        "a line break in the name": (path + f"\n{expires}", query),
        "a later end": (path, f"expires={int(expires) + 1}&signature={signature}"),
        "a much later end": (path, f"expires={expires}0&signature={signature}"),
        "an end with a plus": (path, f"expires=%2B{expires}&signature={signature}"),
        "an end with a space": (path, f"expires=%20{expires}&signature={signature}"),
        "an end with a zero": (path, f"expires=0{expires}&signature={signature}"),
        "an end with an underscore": (path, f"expires=1_{expires[1:]}&signature={signature}"),
        "an end in other digits": (
            path,
            f"expires={quote(''.join(chr(0x0660 + int(n)) for n in expires))}&signature={signature}",
        ),
        "an end that is a fraction": (path, f"expires={expires}.0&signature={signature}"),
        "no end": (path, f"signature={signature}"),
        "an empty end": (path, f"expires=&signature={signature}"),
        "an end for ever": (path, f"expires=inf&signature={signature}"),
        "a negative end": (path, f"expires=-{expires}&signature={signature}"),
        "a huge end": (path, f"expires={'9' * 5000}&signature={signature}"),
        "another signature": (path, f"expires={expires}&signature={flipped}"),
        "a shorter signature": (path, f"expires={expires}&signature={signature[:-1]}"),
        "a longer signature": (path, f"expires={expires}&signature={signature}0"),
        "an upper-case signature": (path, f"expires={expires}&signature={signature.upper()}"),
        "an empty signature": (path, f"expires={expires}&signature="),
        "no signature": (path, f"expires={expires}"),
        "a signature that is no ASCII": (path, f"expires={expires}&signature={'%C3%A9' * 64}"),
        "a signature with NUL": (path, f"expires={expires}&signature=%00{signature[1:]}"),
        "two signatures": (path, f"{query}&signature={signature}"),
        "two ends": (path, f"expires=9999999999&{query}"),
        "something more": (path, f"{query}&x=1"),
        "something empty": (path, f"{query}&"),
        "nothing": (path, ""),
        "no pair": (path, "expires"),
    }


@pytest.mark.parametrize("how", sorted(changed("/artifacts/7f3c/build.log?expires=12&signature=ab")))
def test_a_link_that_was_changed_is_refused(links: Links, how: str) -> None:
    path, query = changed(links.path_to(ID, "build.log"))[how]

    assert "was changed" in refused(links, path, query)


def test_a_link_of_another_key_is_refused(links: Links, clock: FakeClock) -> None:
    path, query = parts(Links(OTHER_KEY, clock, lasts=LASTS).path_to(ID, "build.log"))

    assert "was changed" in refused(links, path, query)


def test_a_link_that_was_changed_tells_nothing_of_its_end(links: Links, clock: FakeClock) -> None:
    path, query = parts(links.path_to(ID, "build.log"))
    clock.advance(seconds=10 * LASTS.total_seconds())

    assert "expired" not in refused(links, path + "x", query)


def test_signatures_are_compared_in_constant_time(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    path, query = parts(links.path_to(ID, "build.log"))
    links.check(path, query)

    [(given, own)] = compared
    assert given == own == query.rpartition("=")[2]


def test_a_refused_link_is_a_403_also_at_the_door() -> None:
    error = LinkRefused("because")

    assert isinstance(error, Unauthenticated)
    assert (error.code, status_of(error)) == (ErrorCode.FORBIDDEN, 403)


ANN = make_caller("ann", Role.VIEWER)


class Tokens:
    """Knows ann, and everybody without a name by no name."""

    sessions = None

    def __init__(self) -> None:
        self.asked = 0

    async def admit(self, scope: Scope) -> Caller:
        self.asked += 1
        if not any(name == b"authorization" for name, _ in scope["headers"]):
            raise Unauthenticated("This needs a token.")
        return ANN


def request(link: str, *, method: str = "GET", token: bool = False, kind: str = "http", **more: Any) -> Scope:
    path, query = parts(link)
    headers = [(b"authorization", b"Bearer x")] if token else []
    return {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": headers, **more}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_follows_a_link_needs_no_token_and_may_read(links: Links, method: str) -> None:
    tokens = Tokens()

    caller = await LinkKeeper(tokens, links).admit(request(links.path_to(ID, "a"), method=method))

    assert caller is HOLDER
    assert caller.permissions == {Permission.READ}
    assert tokens.asked == 0


async def test_a_broken_link_is_refused_whatever_token_comes_with_it(links: Links) -> None:
    with pytest.raises(LinkRefused):
        await LinkKeeper(Tokens(), links).admit(request(links.path_to(ID, "a") + "0", token=True))


async def test_without_a_signature_a_token_is_asked_for(links: Links) -> None:
    keeper, plain = LinkKeeper(Tokens(), links), f"/artifacts/{ID}/a"

    assert await keeper.admit(request(plain, token=True)) is ANN
    with pytest.raises(Unauthenticated):
        await keeper.admit(request(plain))


@pytest.mark.parametrize(
    "scope",
    [
        {"method": "POST"},
        {"method": "DELETE"},
        {"kind": "websocket"},
        {"path": "/api/v1/tasks"},
        {"path": "/artifactsx/"},
        {"path": "//artifacts/x/y"},
    ],
    ids=str,
)
async def test_a_link_opens_nothing_but_its_own_path(links: Links, scope: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await LinkKeeper(Tokens(), links).admit(request(links.path_to(ID, "a"), **scope))

    assert not isinstance(caught.value, LinkRefused)


async def test_where_nobody_is_asked_for_a_token_a_link_lets_nobody_in_from_elsewhere(links: Links) -> None:
    keeper = LinkKeeper(EverybodyOfThisHost(), links)

    near = await keeper.admit(request(links.path_to(ID, "a"), client=("127.0.0.1", 1)))
    with pytest.raises(Unauthenticated):
        await keeper.admit(request(links.path_to(ID, "a"), client=("192.0.2.1", 1)))
    with pytest.raises(LinkRefused):
        await keeper.admit(request(links.path_to(ID, "a") + "0", client=("127.0.0.1", 1)))

    assert near is ANYBODY


@pytest.mark.parametrize(
    ("keeper", "token", "anonymous"),
    [(Tokens(), False, 1), (Tokens(), True, 1), (EverybodyOfThisHost(), False, 0)],
    ids=["nobody", "who sends a token beside the link", "everybody of this host"],
)
async def test_who_follows_a_link_takes_no_room_that_is_kept_for_known_callers(
    links: Links, keeper: Keeper, token: bool, anonymous: int
) -> None:
    connections = Connections(most=100)
    connection = connections.enter(Mock(), "127.0.0.1", now=0)
    app = SimpleNamespace(state=SimpleNamespace(keeper=LinkKeeper(keeper, links)))
    followed = request(links.path_to(ID, "a"), token=token, client=("127.0.0.1", 1))
    served = AsyncMock()

    await Door(served, public=(), detailed=())(
        {**followed, "app": app, "state": {CONNECTION: connection}}, AsyncMock(), AsyncMock()
    )

    served.assert_awaited_once()
    assert connections.anonymous == anonymous


async def test_a_connection_is_known_when_a_token_comes_on_it(links: Links) -> None:
    connections = Connections(most=100)
    connection = connections.enter(Mock(), "127.0.0.1", now=0)
    app = SimpleNamespace(state=SimpleNamespace(keeper=LinkKeeper(Tokens(), links)))
    asked = request(f"/artifacts/{ID}/a", token=True)

    await Door(AsyncMock(), public=(), detailed=())(
        {**asked, "app": app, "state": {CONNECTION: connection}}, AsyncMock(), AsyncMock()
    )

    assert connections.anonymous == 0
