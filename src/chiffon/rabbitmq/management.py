"""Make steps true through RabbitMQ's management API, and say what was changed."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from chiffon.rabbitmq.requests import Request, holds, requests_of
from chiffon.rabbitmq.settings import RabbitmqSettings
from chiffon.rabbitmq.steps import Step
from common.errors import StartupRefused
from common.http_client import client_options

TIMEOUT_SECONDS = 30.0


class ManagementRefused(StartupRefused):
    """RabbitMQ's management API is away or does not do what it was asked; what was done before that stays done."""


class Management:
    """RabbitMQ as its administrator sees it."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def apply(self, steps: Iterable[Step]) -> list[str]:
        """Make every step true, in order; return what had to be changed. Raises `ManagementRefused`."""
        requests = [request for step in steps for request in requests_of(step)]
        return [request.about for request in requests if await self._apply(request)]

    async def _apply(self, request: Request) -> bool:
        if request.look is not None and await self._is_so(request):
            return False
        response = await self._send(request.method, request.path, request.body)
        if response.status_code == 404 and request.method == "DELETE":
            return False
        if not response.is_success:
            raise ManagementRefused(f"RabbitMQ refuses this: {request.about}. {_reason(response)}")
        return True

    async def _is_so(self, request: Request) -> bool:
        assert request.look is not None
        response = await self._send("GET", request.look)
        if response.status_code == 404:
            return False
        if not response.is_success:
            raise ManagementRefused(f"RabbitMQ does not show this: {request.about}. {_reason(response)}")
        found = response.json()
        return any(holds(one, request.wanted) for one in (found if isinstance(found, list) else [found]))

    async def _send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx2.HTTPError as failure:
            raise ManagementRefused(
                f"RabbitMQ's management API at {self._client.base_url} cannot be used: "
                f"{failure or type(failure).__name__} Is CHIFFON_RABBITMQ_MANAGEMENT_URL right, and the plugin enabled?"
            ) from failure


@asynccontextmanager
async def open_management(settings: RabbitmqSettings) -> AsyncIterator[Management]:
    """Open the management API that the settings name, as the administrator that they name."""
    url = settings.management_url
    async with httpx2.AsyncClient(
        auth=(settings.admin_user, settings.read_admin_password()),
        timeout=TIMEOUT_SECONDS,
        **client_options(url),
    ) as client:
        yield Management(client)


def _reason(response: httpx2.Response) -> str:
    if response.status_code in (401, 403):
        return "Does CHIFFON_RABBITMQ_ADMIN_USER name an administrator, with the right password?"
    try:
        return f"It says: {response.json()['reason']}"
    except (ValueError, KeyError, TypeError):
        return f"It answered {response.status_code}."
