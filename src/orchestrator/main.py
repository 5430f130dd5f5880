"""The orchestrator as a program: the FastAPI app, and how it is served."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from common.broker.base import Broker
from common.config import SharedSettings
from common.errors import StartupRefused
from common.logs import configure_logs
from common.open_files import raise_open_files
from common.urls import place
from orchestrator import api
from orchestrator.approvals import api as approvals
from orchestrator.artifacts import api as artifacts
from orchestrator.artifacts.streams import Streams
from orchestrator.audit import api as audit
from orchestrator.dead_letters import api as dead_letters
from orchestrator.fan_outs import api as fan_outs
from orchestrator.http import docs, errors, strict
from orchestrator.http.connections import Connection, Connections, room
from orchestrator.http.context import RequestContext
from orchestrator.http.head import HeadIsGet
from orchestrator.http.limits import BodyLimit
from orchestrator.http.origin import LOOPBACK, OwnPagesOnly
from orchestrator.http.protocol import Protocol
from orchestrator.http.routes import ReplacedDependencies
from orchestrator.http.strict import NOTHING_IS_DROPPED, ReadBodies
from orchestrator.http.tls import TlsServer, tls_context
from orchestrator.http.websocket import WebSockets
from orchestrator.identities import access
from orchestrator.identities import api as identities
from orchestrator.identities.access import DETAILED, PUBLIC, check_routes
from orchestrator.identities.door import Door, NotStarted
from orchestrator.identities.door_keeping import check_authentication
from orchestrator.jobs import api as jobs
from orchestrator.live import api as live
from orchestrator.ops import api as ops
from orchestrator.ops import health
from orchestrator.ops.health import LATELY_SECONDS, READY_SECONDS, Lately
from orchestrator.policy import api as policy
from orchestrator.registry import api as fleet
from orchestrator.repairs import api as repairs
from orchestrator.runs import api as runs
from orchestrator.settings import OrchestratorSettings
from orchestrator.shortcut import Shortcut
from orchestrator.tasks import api as tasks
from orchestrator.wiring import Orchestrator, open_orchestrator
from orchestrator.work_types import api as work_types

log = logging.getLogger(__name__)

# What a reader of events sends is thrown away, so nobody needs to send more than this at once.
MOST_FRAME_BYTES = 64 * 1024
LEAVE_SECONDS = 5
# A WebSocket is asked so often whether it is alive, and has as long to answer.
PING_SECONDS = 20.0
# Of the API: the documentation is for strangers, too, who need not know the version of the program.
API_VERSION = "1"
# A request is compared with the routes of these in this order.
PARTS = (
    api,
    tasks,
    work_types,
    fleet,
    fan_outs,
    runs,
    repairs,
    artifacts,
    dead_letters,
    jobs,
    ops,
    live,
    approvals,
    policy,
    identities,
    audit,
    health,
)
# Of uvicorn, which looks at one part of the connections with each.
TICKS_PER_SECOND = 10

DESCRIPTION = """
Dispatch work to agents, follow it live, and see afterwards what ran where.

Every error has one shape: problem details (RFC 9457) with `error_code`, `error_message` and `trace_id`.
Live updates are sent over the WebSockets `/ws/{trace_id}` and `/api/v1/ws`.
"""


def create_app(
    orchestrator: Orchestrator | None = None, *, max_body_bytes: int | None = None, loopback_only: bool = False
) -> FastAPI:
    """Make the app, around an orchestrator that runs or, without one, around one that the app opens when it starts.

    `loopback_only`: refuse what was not addressed to this host.
    """
    app = FastAPI(
        title="Chiffon",
        version=API_VERSION,
        description=DESCRIPTION,
        lifespan=_lifespan if orchestrator is None else None,
        # Of its own routes, which are those of the documentation; the others have it from `Router`.
        dependencies=[NOTHING_IS_DROPPED],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    if orchestrator is not None:
        _attach(app, orchestrator)
    else:
        app.state.keeper = NotStarted()
        app.state.pools = ()
    errors.install(app)
    app.state.max_body_bytes = max_body_bytes or OrchestratorSettings.model_fields["max_body_bytes"].default
    app.add_middleware(HeadIsGet)
    app.add_middleware(ReplacedDependencies)
    app.add_middleware(Shortcut)
    app.add_middleware(ReadBodies)
    app.add_middleware(BodyLimit, public=PUBLIC)
    app.add_middleware(Streams)
    app.add_middleware(Door, public=PUBLIC, detailed=DETAILED)
    app.add_middleware(OwnPagesOnly, loopback_only=loopback_only)
    app.add_middleware(RequestContext, on_error=errors.unexpected)
    for part in PARTS:
        app.router.routes.extend(part.router.routes)
    docs.install(app)
    check_routes(app)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        return access.door_documented(strict.refusals_documented(describe()))

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to add to the document
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    shared, settings = SharedSettings.load(), OrchestratorSettings.load()
    configure_logs(service="orchestrator", level=shared.log_level, style=shared.log_format)
    app.state.max_body_bytes = settings.max_body_bytes
    async with open_orchestrator(settings, shared) as orchestrator:
        _attach(app, orchestrator)
        yield


def _attach(app: FastAPI, orchestrator: Orchestrator) -> None:
    app.state.orchestrator_service = orchestrator.service
    app.state.task_control = orchestrator.task_control
    app.state.fleet = orchestrator.fleet
    app.state.fan_outs = orchestrator.fan_outs
    app.state.runs = orchestrator.runs
    app.state.artifacts = orchestrator.artifacts
    app.state.repairs = orchestrator.repairs
    app.state.dead_letters = orchestrator.dead_letters
    app.state.jobs = orchestrator.jobs
    app.state.ops = orchestrator.ops
    app.state.live = orchestrator.live
    needed = {name: orchestrator.checks[name] for name in ("broker", "database")}
    app.state.lately = Lately(partial(health.passed, needed), seconds=LATELY_SECONDS)
    app.state.readiness = Lately(partial(health.readiness, orchestrator.checks), seconds=READY_SECONDS)
    app.state.policy = orchestrator.policy
    app.state.approvals = orchestrator.approvals
    app.state.keeper = orchestrator.keeper
    app.state.identities = orchestrator.identities
    app.state.audit = orchestrator.audit
    app.state.pools = orchestrator.pools
    app.state.registry = orchestrator.registry
    app.state.routes = orchestrator.routes


class _Server(uvicorn.Server):
    """A server that says when it has started, keeps clients to their time, and leaves signals to those who run it."""

    def __init__(
        self, config: uvicorn.Config, started: asyncio.Event, connections: Connections, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._has_started = started
        self._connections = connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
        else:
            # uvicorn closes them like servers of the event loop.
            servers: Any = [TlsServer(one, self._tls, self._connections, self._protocol) for one in sockets or ()]
            self.servers = servers
            self.started = True
        self._has_started.set()

    def _protocol(self, connection: Connection) -> Protocol:
        state = self.lifespan.state
        return Protocol(self.config, self.server_state, state, connections=self._connections, connection=connection)

    async def on_tick(self, counter: int) -> bool:
        self._connections.check(asyncio.get_running_loop().time(), parts=TICKS_PER_SECOND)
        return await super().on_tick(counter)


async def serve(
    settings: OrchestratorSettings,
    shared: SharedSettings,
    *,
    broker: Broker | None = None,
    started: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve HTTP and run all loops until SIGTERM or SIGINT, or until `stop` is set; sets `started` when it listens.

    Raises `StartupRefused` when the broker, the database, its schema or the address are not usable.
    """
    check_authentication(settings)
    tls = tls_context(settings.tls_cert_file, settings.tls_key_file)
    raise_open_files()
    most, backlog = room(database_connections=settings.database_connections)
    connections = Connections(most=most, proxies=settings.trusted_proxies)
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(_listen(settings.host, settings.port, backlog))
        orchestrator = await stack.enter_async_context(open_orchestrator(settings, shared, broker=broker))
        config = uvicorn.Config(
            create_app(orchestrator, max_body_bytes=settings.max_body_bytes, loopback_only=settings.host in LOOPBACK),
            # Called like a class, with arguments by name.
            http=partial(Protocol, connections=connections),  # type: ignore[arg-type]
            ws=WebSockets,
            # What is compressed is made anew for each reader.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=LEAVE_SECONDS,
            ws_max_size=MOST_FRAME_BYTES,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PING_SECONDS,
            backlog=backlog,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(map(str, settings.trusted_proxies)),
        )
        server = _Server(config, started or asyncio.Event(), connections, tls)
        host, port = listening.getsockname()[:2]
        log.info("orchestrator.listening", extra={"host": host, "port": port})
        await _run(server, listening, stop or _stop_on_signals(), leave=orchestrator.jobs.desk.close)
    log.info("orchestrator.stopped")


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog
        )
    except OSError as error:
        raise StartupRefused(f"Cannot listen on {place(host, port)}: {error.strerror}.") from error
    # asyncio, unlike uvloop, leaves it off for what this socket accepts; then every body waits 40 ms behind its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _run(
    server: uvicorn.Server, listening: socket.socket, stop: asyncio.Event, *, leave: Callable[[], None]
) -> None:
    serving = asyncio.create_task(server.serve([listening]), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    leave()  # requests that wait for something are answered at once
    server.should_exit = True
    await serving


def __getattr__(name: str) -> FastAPI:
    """Make `app` when a server that was told `orchestrator.main:app` asks for it; `serve` makes one of its own."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = globals()["app"] = create_app()
    return app
