"""What administrators do through the client: make identities, tokens and enrolments, and take them away."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from chiffon.http import Http
from chiffon.operations import AnyId
from common.rest.bodies import body_of
from common.rest.identities import (
    Enrolled,
    Enrolment,
    EnrolmentRequest,
    EnrolRequest,
    Identity,
    IdentityRequest,
    NewToken,
    Token,
    TokenRequest,
    WhoAmI,
)


class Access:
    """A part of `Client`; see there for what calls raise."""

    _http: Http

    async def whoami(self) -> WhoAmI:
        """Return whose token this client sends, and what may be done with it."""
        return WhoAmI.model_validate(await self._http.get("/api/v1/whoami"))

    async def identities(self) -> list[Identity]:
        """Return people, services and agents, by name."""
        return [Identity.model_validate(one) for one in await self._http.get("/api/v1/identities")]

    async def create_identity(self, name: str, roles: Sequence[str], *, kind: str = "person") -> Identity:
        """Make a person or a service known."""
        body = body_of(IdentityRequest, name=name, roles=roles, kind=kind)
        return Identity.model_validate(await self._http.post("/api/v1/identities", body, repeatable=False))

    async def disable_identity(self, principal_id: AnyId) -> Identity:
        """Shut somebody out, for ever."""
        path = f"/api/v1/identities/{principal_id}/disable"
        return Identity.model_validate(await self._http.post(path, repeatable=True))

    async def tokens(self, *, principal_id: AnyId | None = None) -> list[Token]:
        """Return what is known of the tokens, newest first."""
        query = {"principal_id": None if principal_id is None else str(principal_id), "limit": 1000}
        return [Token.model_validate(one) for one in await self._http.get("/api/v1/tokens", query)]

    async def create_token(
        self,
        principal_id: AnyId,
        *,
        scopes: Sequence[str] | None = None,
        note: str = "",
        lasting: timedelta | None = None,
    ) -> NewToken:
        """Make a token; the answer is the only one that holds it."""
        seconds = None if lasting is None else round(lasting.total_seconds())
        body = body_of(TokenRequest, principal_id=principal_id, scopes=scopes, note=note, expires_in_seconds=seconds)
        return NewToken.model_validate(await self._http.post("/api/v1/tokens", body, repeatable=False))

    async def claim_token(self) -> NewToken:
        """Claim the token that this client sends, which counts no more; only the answer holds the new one."""
        return NewToken.model_validate(await self._http.post("/api/v1/tokens/claim", repeatable=False))

    async def revoke_token(self, token_id: AnyId) -> Token:
        """Let a token count no more."""
        return Token.model_validate(await self._http.post(f"/api/v1/tokens/{token_id}/revoke", repeatable=True))

    async def invite_agent(
        self,
        name: str,
        agent_type: str,
        *,
        labels: Mapping[str, Any] | None = None,
        lasting: timedelta = timedelta(minutes=15),
    ) -> Enrolment:
        """Let an agent enrol; the answer is the only one that holds its enrolment token.

        The pool and the labels are pinned: nothing that the agent says changes them.
        """
        seconds = round(lasting.total_seconds())
        body = body_of(EnrolmentRequest, name=name, agent_type=agent_type, labels=labels or None, ttl_seconds=seconds)
        return Enrolment.model_validate(await self._http.post("/api/v1/enrolments", body, repeatable=False))

    async def enrol(self, token: str) -> Enrolled:
        """Become an agent with an enrolment token; the answer is the only one that holds the agent's credential."""
        body = body_of(EnrolRequest, token=token)
        return Enrolled.model_validate(await self._http.post("/api/v1/enrol", body, repeatable=False))
