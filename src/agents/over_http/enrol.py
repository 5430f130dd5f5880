"""Exchange an enrolment token for a credential of one's own. It works once, so nothing is repeated here."""

import httpx2
from pydantic import ValidationError

from agents.identity.credential import Credential
from agents.over_http.client import ANSWER_SECONDS, reason_of
from common.errors import InvalidField, StartupRefused
from common.http_client import client_options
from common.rest.bodies import body_of
from common.rest.identities import Enrolled, EnrolRequest


class NotEnrolled(StartupRefused):
    """The orchestrator did not make this an agent; the message says why, and holds no token."""


async def enrol(server: str, token: str) -> Credential:
    """Become an agent of an orchestrator; raises `NotEnrolled`."""
    try:
        body = body_of(EnrolRequest, token=token)
    except InvalidField as error:
        raise NotEnrolled(f"{server} would refuse: {error}.") from None
    http = httpx2.AsyncClient(timeout=ANSWER_SECONDS, **client_options(server))
    async with http:
        try:
            answer = await http.post("api/v1/enrol", json=body)
        except httpx2.HTTPError as failure:
            raise NotEnrolled(f"{server} did not answer: {type(failure).__name__} {failure}".strip()) from None
    if not answer.is_success:
        raise NotEnrolled(f"{server} refused: {reason_of(answer)[1]} (HTTP {answer.status_code})")
    try:
        got = Enrolled.model_validate_json(answer.content)
    except ValidationError:
        raise NotEnrolled(f"{server} gave an answer that was not understood.") from None
    return Credential(got.agent_id, got.agent_type, got.token, tuple(got.trusted_keys))
