"""Signed paths: whoever has one may read one artifact until it expires, without a token.

A path is `/artifacts/<artifact_id>/<name>?expires=<seconds since 1970>&signature=<HMAC-SHA256, in hexadecimal digits>`.
What is signed is exactly what it names, so that a path with another artifact, name or end is none.
"""

import hmac
import re
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlencode
from uuid import UUID

from starlette.types import Scope

from common.clock import Clock
from common.errors import ErrorCode
from common.rest.identities import Permission, PrincipalKind
from orchestrator.identities.door import EverybodyOfThisHost, Keeper
from orchestrator.identities.model import Caller, Unauthenticated
from orchestrator.identities.sessions import Sessions

PREFIX = "/artifacts/"
# Keeps these signatures apart from others that the same key may make.
PURPOSE = b"chiffon artifact link\n"
# Written one way only: other digits that Python reads, signs and leading zeros are no end of a link.
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# Who follows a link; what it may see is the one path that is signed.
HOLDER = Caller(
    principal_id=UUID(int=0),
    kind=PrincipalKind.SERVICE,
    name="holder of a link",
    roles=frozenset(),
    permissions=frozenset({Permission.READ}),
)


class LinkRefused(Unauthenticated):
    """A signed path does not count: it is not known who asks, and nothing else says that they may."""

    code = ErrorCode.FORBIDDEN


class Links:
    """Signs paths and checks them."""

    def __init__(self, key: bytes, clock: Clock, *, lasts: timedelta) -> None:
        self._key = key
        self._clock = clock
        self._lasts = lasts

    def path_to(self, artifact_id: UUID, name: str) -> str:
        """Return a signed path to an artifact, which counts from now on for as long as the settings say."""
        expires = str(int((self._clock.now() + self._lasts).timestamp()))
        query = urlencode({"expires": expires, "signature": self._sign(str(artifact_id), name, expires)})
        return f"{PREFIX}{artifact_id}/{quote(name)}?{query}"

    def check(self, path: str, query: str) -> None:
        """Raise `LinkRefused` unless a path, its escapes resolved, is signed and has not expired."""
        artifact_id, _, name = path.removeprefix(PREFIX).partition("/")
        expires, signature = _of(query)
        if not (path.startswith(PREFIX) and _ID.fullmatch(artifact_id) and name and _EXPIRES.fullmatch(expires)):
            raise LinkRefused(_CHANGED)
        if not _SIGNATURE.fullmatch(signature):
            raise LinkRefused(_CHANGED)
        if not hmac.compare_digest(signature, self._sign(artifact_id, name, expires)):
            raise LinkRefused(_CHANGED)
        if self._clock.now().timestamp() >= int(expires):
            raise LinkRefused("This link has expired: list the artifacts again for a new one.")

    def _sign(self, artifact_id: str, name: str, expires: str) -> str:
        # The name is last: nothing else has a line break, and the name may have anything.
        said = f"{artifact_id}\n{expires}\n{name}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, PURPOSE + said, "sha256").hexdigest()


_CHANGED = "This is no link of this orchestrator, or it was changed: list the artifacts again for a new one."


def _of(query: str) -> tuple[str, str]:
    """Return the end and the signature that a query names; empty texts unless it names both, once, and nothing else."""
    try:
        given = parse_qs(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2)
    except ValueError:
        return "", ""
    if given.keys() != {"expires", "signature"}:
        return "", ""
    return given["expires"][0], given["signature"][0]


class LinkKeeper:
    """Lets those pass who follow a signed path, for that path only; of everybody else the other keeper decides."""

    def __init__(self, other: Keeper, links: Links) -> None:
        self._other = other
        self._links = links

    @property
    def sessions(self) -> Sessions | None:
        return self._other.sessions

    async def admit(self, scope: Scope) -> Caller:
        """Return who makes a request; raises `LinkRefused`, and what the other keeper raises."""
        if not _follows_a_link(scope):
            return await self._other.admit(scope)
        self._links.check(scope["path"], scope["query_string"].decode("latin-1"))
        if isinstance(self._other, EverybodyOfThisHost):  # nobody of another host passes, with or without a link
            return await self._other.admit(scope)
        return HOLDER


def _follows_a_link(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and scope["path"].startswith(PREFIX)
        and bool(scope["query_string"])
    )
