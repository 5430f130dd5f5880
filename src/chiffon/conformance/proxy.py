"""A reverse proxy on the loopback interface that records what passes and does what a bad network does, on demand.

The real server answers; the proxy only cuts, holds, loses or replaces.
"""

import asyncio
import json
import time
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

import httpx2

from chiffon.conformance.http1 import LONGEST_HEAD, Malformed, RawRequest, answer, read_request
from chiffon.conformance.traffic import Exchange, Traffic, parsed
from common.http_client import is_loopback
from common.urls import http_url

OWN_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "expect", "accept-encoding"})
LONGEST_WAIT = 120.0
NOTICE = 0.05


class Fault(Enum):
    """What becomes of a request."""

    CUT = auto()  # it does not reach the server, and the connection is reset
    BUSY = auto()  # it does not reach the server, which seems to answer 503
    NOTHING = auto()  # it does not reach the server, which seems to have no job
    STALE = auto()  # it does not reach the server, which seems to say that the lease is lost
    LOST = auto()  # the server does what is asked, and the connection is reset in place of the answer
    LATE = auto()  # the server does what is asked, and the answer is held until the fault ends
    EXTRA = auto()  # the answer has fields that nobody knows


# Those that need no answer of the server; the others are chosen when it is known which job a claim got.
BEFORE = frozenset({Fault.CUT, Fault.BUSY, Fault.NOTHING, Fault.STALE})
PLAYED = {
    Fault.BUSY: (503, {"error_code": 9003, "error_message": "The server is away; so the conformance kit has it."}),
    Fault.NOTHING: (200, {"job": None}),
    Fault.STALE: (409, {"error_code": 2002, "error_message": "The lease is lost; so the conformance kit has it."}),
}


class Rule:
    """A fault for every request of some kinds, about one job or attempt if named, so many times or until it ends."""

    def __init__(
        self, fault: Fault, actions: tuple[str, ...], job: str | None, attempt: int | None, times: int | None
    ) -> None:
        self.fault = fault
        self._actions = actions
        self._job = job
        self._attempt = attempt
        self._left = times
        self.over = asyncio.Event()
        self.met: list[Exchange] = []

    def end(self) -> None:
        """Let everything pass again, also what is held."""
        self.over.set()

    def meets(self, exchange: Exchange) -> bool:
        """Say whether it is for this request; if so, that was one of its times."""
        if self.over.is_set() or self._left == 0:
            return False
        if self._actions and exchange.action not in self._actions:
            return False
        if self._job is not None and exchange.job_id != self._job:
            return False
        # A worker that leaves the attempt out means whichever there is.
        if self._attempt is not None and exchange.says("attempt") not in (self._attempt, None):
            return False
        if self._left is not None:
            self._left -= 1
        self.met.append(exchange)
        return True


class Proxy:
    """Listens on a free port as long as it is entered; `url` is what the worker is told."""

    def __init__(self, server: str) -> None:
        self.traffic = Traffic()
        self._client = httpx2.AsyncClient(base_url=server, timeout=LONGEST_WAIT, trust_env=not is_loopback(server))
        self._rules: list[Rule] = []
        self._listening: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._port = 0

    @property
    def url(self) -> str:
        return http_url("127.0.0.1", self._port)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        try:
            await self.open_door()
        except BaseException as failure:  # a case that is given up while its proxy opens
            await self.__aexit__(type(failure), failure, failure.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        await self.close_door()
        await self._client.__aexit__(kind, error, trace)

    def clear(self) -> None:
        """End every fault and begin a new record."""
        for rule in self._rules:
            rule.end()
        self._rules.clear()
        self.traffic = Traffic()

    def on(
        self,
        *actions: str,
        fault: Fault,
        job: str | None = None,
        attempt: int | None = None,
        times: int | None = None,
    ) -> Rule:
        """Begin a fault for requests of these kinds, or for all."""
        rule = Rule(fault, actions, job, attempt, times)
        self._rules.append(rule)
        return rule

    async def open_door(self) -> None:
        """Accept connections, at the same port as before."""
        self._listening = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, limit=LONGEST_HEAD, start_serving=False
        )
        self._port = self._listening.sockets[0].getsockname()[1]
        await self._listening.start_serving()

    async def close_door(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        await self.cut_all()

    async def cut_all(self) -> None:
        """Reset every connection."""
        connections = dict(self._connections)
        for task, writer in connections.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader, writer)) is not None:
                serving = asyncio.ensure_future(self._answer(request, writer))
                try:
                    while not serving.done():
                        await asyncio.wait({serving}, timeout=NOTICE)
                        # A worker that hung up waits for nothing: the server must learn it as if it were connected.
                        if reader.at_eof() or writer.transport.is_closing():
                            return
                finally:
                    serving.cancel()
                    await asyncio.gather(serving, return_exceptions=True)
                if not serving.result() or not request.keeps_open:
                    return
        except Malformed as problem:
            self.traffic.exchanges.append(
                Exchange("?", "?", None, time.monotonic(), 400, {"error_message": str(problem)})
            )
            writer.write(answer(400, str(problem).encode(), content_type="text/plain"))

    async def _answer(self, request: RawRequest, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request; return whether the connection may be used on."""
        exchange = Exchange(request.method, request.target, parsed(request.body), time.monotonic())
        self.traffic.exchanges.append(exchange)
        rule = self._rule(exchange, before=True)
        if rule is not None and rule.fault is Fault.CUT:
            writer.transport.abort()
            return False
        content_type = "application/json"
        if rule is not None:
            exchange.status, exchange.answer = PLAYED[rule.fault]
            content = json.dumps(exchange.answer).encode()
        else:
            response = await self._forward(request)
            exchange.status, content = response.status_code, response.content
            exchange.answer = parsed(content)
            content_type = response.headers.get("content-type", content_type)
            rule = self._rule(exchange, before=False)
        match rule.fault if rule is not None else None:
            case Fault.LOST:
                writer.transport.abort()
                return False
            case Fault.LATE:
                assert rule is not None
                await rule.over.wait()
            case Fault.EXTRA:
                content = json.dumps(_with_more(exchange.answer)).encode()
        writer.write(answer(exchange.status, content, content_type=content_type))
        await writer.drain()
        exchange.answered_at = time.monotonic()
        return True

    def _rule(self, exchange: Exchange, *, before: bool) -> Rule | None:
        fitting = (rule for rule in self._rules if (rule.fault in BEFORE) is before and rule.meets(exchange))
        return next(fitting, None)

    async def _forward(self, request: RawRequest) -> httpx2.Response:
        headers = {name: value for name, value in request.headers.items() if name not in OWN_HEADERS}
        try:
            return await self._client.request(request.method, request.target, content=request.body, headers=headers)
        except httpx2.TransportError as failure:
            return httpx2.Response(502, json={"error_message": f"No answer: {failure or type(failure).__name__}"})


def _with_more(value: Any) -> Any:
    """Return an answer with a field in every object that no version of the contract has."""
    if isinstance(value, dict):
        return {name: _with_more(inner) for name, inner in value.items()} | {"fieldOfALaterVersion": [1, {"a": None}]}
    return value
