"""An orchestrator that speaks HTTP and WebSocket like the real one and runs nothing: a dispatch ends as it is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.unit.chiffon.fake_runs import FakeRuns, problem

NOW = datetime(2026, 11, 22, tzinfo=UTC).isoformat()
NO_IDS = dict.fromkeys(("trace_id", "request_id", "agent_id"))
RULED = {"effect": "write", "policy_rule": "any work", "policy_version": "1-0"}
NOT_SETTLED = dict.fromkeys(("message_id", "task_id", "settled_at", "settled_by", "replayed_as"))


class FakeOrchestrator:
    """Its state is public: tests arrange it and look at it."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.dispatches: list[dict[str, Any]] = []
        self.lost_answers = 0
        self.outcome: dict[str, Any] = {"status": "completed", "exit_code": 0}
        self.output: list[tuple[str, str]] = [("stdout", "hello\n")]
        self.blockers: list[dict[str, Any]] = []
        self.feeds: list[dict[str, str]] = []
        self.agents: list[dict[str, Any]] = []
        self.work_types: list[dict[str, Any]] = []
        self.letters: list[dict[str, Any]] = []
        self.orders: list[tuple[str, str, dict[str, Any]]] = []
        self.cuts: list[tuple[int, int | None]] = []
        """After how many events each connection to come is closed, and with which code; None: it falls silent."""
        self.then: Callable[[], None] = lambda: None
        """What happens once a reader of events is there."""
        self.overlap = 0
        """How many events before its position a reader is sent once more."""
        self.runs = FakeRuns(self)
        self.ended = False
        """Its readers are let go: another fake takes its place."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/dispatch", self._dispatch, methods=["POST"]),
                Route("/api/v1/status/{task_id}", self._status),
                Route("/api/v1/tasks", self._tasks),
                Route("/api/v1/tasks/{task_id}/output", self._output),
                Route("/api/v1/tasks/{task_id}/events", self._events),
                Route("/api/v1/tasks/{task_id}/why", self._why),
                Route("/api/v1/agents", self._agents),
                Route("/api/v1/work-types", self._work_types),
                Route("/api/v1/agents/{agent_id}/{order}", self._order, methods=["POST"]),
                Route("/api/v1/traces/{trace_id}/cancel", self._cancel_trace, methods=["POST"]),
                Route("/api/v1/tasks/{task_id}/rerun", self._rerun, methods=["POST"]),
                Route("/api/v1/dead-letters", self._dead_letters),
                Route("/api/v1/dead-letters/{order:str}", self._settle, methods=["POST"]),
                Route("/api/v1/dead-letters/{letter:int}", self._dead_letter),
                Route("/api/v1/cancel/{task_id}", self._cancel, methods=["POST"]),
                WebSocketRoute("/api/v1/ws", self._feed),
                *self.runs.routes(),
            ]
        )

    def add_event(self, kind: str, task_id: str | None, /, **data: Any) -> None:
        seq = len(self.events) + 1
        event = {"seq": seq, "at": NOW, "kind": kind, "task_id": task_id, "attempt": 1, "actor": "fake", "data": data}
        self.events.append(event | NO_IDS)

    def add_task(self, task_id: str, *, work_type: str = "shell_script", priority: int = 3, **how: Any) -> None:
        """Let a task begin, write `output`, and end as `outcome` says."""
        common = {"task_id": task_id, "request_id": str(uuid4()), "trace_id": str(uuid4()), "work_type": work_type}
        self.add_event("task.dispatched", task_id, priority=priority)
        self.add_event("task.claimed", task_id)
        ends = {"stdout": 0, "stderr": 0}
        for number, (stream, text) in enumerate(self.output):
            self.add_event("task.output", task_id, number=number, stream=stream, offset=ends[stream], text=text)
            ends[stream] += len(text.encode())
        outcome = self.outcome | how
        tail = "".join(text for _, text in self.output)
        self.tasks[task_id] = common | {"agent_type": "infra", "priority": priority, "created_at": NOW} | outcome
        self.tasks[task_id] |= {"output": tail, "attempt": 1, "max_attempts": 1, "started_at": NOW, "duration_ms": 12}
        self.tasks[task_id] |= {"updated_at": NOW, **RULED}
        if outcome["status"] in ("completed", "failed", "cancelled"):
            self.add_event(f"task.{outcome['status']}", task_id, output_bytes=ends)

    def add_agent(self, hostname: str, agent_id: str | None = None, **how: Any) -> str:
        agent = {"agent_id": agent_id or str(uuid4()), "agent_type": "infra", "status": "online", "hostname": hostname}
        rest = {"last_heartbeat_at": NOW, "started_at": NOW, "version": "0.1.0", "slots": 2, "routed": True}
        rest |= {"resources": {"cpu_percent": 1, "memory_percent": 2}, "work_types": ["echo"], "current_tasks": []}
        self.agents.append(agent | rest | how)
        return agent["agent_id"]

    def add_letter(self, number: int, body: str = "{", **how: Any) -> None:
        letter = {"id": number, "kind": "message", "state": "waiting", "queue": "replies.heartbeats", "type": "renew"}
        rest = {"reason": "no JSON", "at": NOW, "body_bytes": len(body), "body": body, "body_encoding": "utf-8"}
        rest |= {"body_truncated": False, "body_json": None}
        self.letters.append(letter | rest | NOT_SETTLED | how)

    async def _dispatch(self, request: Request) -> Response:
        body = await request.json()
        taken = any(sent["task_id"] == body["task_id"] and sent != body for sent in self.dispatches)
        self.dispatches.append(body)
        if taken:
            return problem(409, 1003, "The id is taken by other content.")
        if body["work_type"] == "unheard_of":
            return problem(400, 1001, "No agent knows this work type.")
        if body["task_id"] not in self.tasks:
            self.add_task(body["task_id"], work_type=body["work_type"], priority=body["priority"])
        if self.lost_answers > 0:
            self.lost_answers -= 1
            return Response(status_code=503)
        task = self.tasks[body["task_id"]]
        return JSONResponse(
            {name: task[name] for name in ("task_id", "request_id", "trace_id")} | {"status": "pending"}
        )

    async def _status(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["task_id"])
        return problem(404, 2001, "No task has this id.") if task is None else JSONResponse(task)

    async def _tasks(self, request: Request) -> Response:
        return JSONResponse({"items": list(self.tasks.values()), "next_cursor": None})

    async def _output(self, request: Request) -> Response:
        stream, offset = request.query_params["stream"], int(request.query_params["offset"])
        stored = "".join(text for name, text in self.output if name == stream).encode()
        answer = {"task_id": request.path_params["task_id"], "attempt": 1, "stream": stream, "offset": offset}
        rest = {"next_offset": len(stored), "text": stored[offset:].decode(), "complete": True}
        return JSONResponse(answer | rest)

    async def _events(self, request: Request) -> Response:
        after = int(request.query_params["after"])
        task_id = request.path_params["task_id"]
        items = [event for event in self.events if event["seq"] > after and event["task_id"] == task_id][:3]
        return JSONResponse({"items": items, "next_after": items[-1]["seq"] if items else after})

    async def _why(self, request: Request) -> Response:
        task_id = request.path_params["task_id"]
        if task_id not in self.tasks:
            return problem(404, 2001, "No task has this id.")
        return JSONResponse({"task_id": task_id, "status": "pending", "waiting": True, "blockers": self.blockers})

    async def _work_types(self, request: Request) -> Response:
        return JSONResponse(self.work_types)

    async def _agents(self, request: Request) -> Response:
        return JSONResponse(self.agents)

    async def _order(self, request: Request) -> Response:
        agent_id, order = request.path_params["agent_id"], request.path_params["order"]
        self.orders.append((order, agent_id, json.loads(await request.body() or b"{}")))
        found = [agent for agent in self.agents if agent["agent_id"] == agent_id]
        return JSONResponse(found[0]) if found else problem(404, 2003, "No agent has this id.")

    async def _cancel_trace(self, request: Request) -> Response:
        trace_id = request.path_params["trace_id"]
        ids = [task_id for task_id, task in self.tasks.items() if task["trace_id"] == trace_id]
        if not ids:
            return problem(404, 2001, "No task belongs to this trace.")
        return JSONResponse({"trace_id": trace_id, "cancelled": ids, "already_ended": 0})

    async def _rerun(self, request: Request) -> Response:
        old = self.tasks.get(request.path_params["task_id"])
        if old is None:
            return problem(404, 2001, "No task has this id.")
        if old["status"] == "running":
            return problem(400, 2002, "The task has not ended.")
        new_id = (await request.json())["task_id"]
        self.add_task(new_id, rerun_of=old["task_id"])
        task = self.tasks[new_id]
        return JSONResponse(
            {name: task[name] for name in ("task_id", "request_id", "trace_id")} | {"status": "pending"}
        )

    async def _dead_letters(self, request: Request) -> Response:
        state = request.query_params.get("state")
        return JSONResponse({"items": [x for x in self.letters if state in (None, x["state"])], "next_cursor": None})

    async def _dead_letter(self, request: Request) -> Response:
        found = [letter for letter in self.letters if letter["id"] == request.path_params["letter"]]
        return JSONResponse(found[0]) if found else problem(404, 2004, "No dead letter has this id.")

    async def _settle(self, request: Request) -> Response:
        ids, known = (await request.json())["ids"], {letter["id"]: letter for letter in self.letters}
        self.orders.append((request.path_params["order"], "dead letters", {"ids": ids}))
        missing = json.loads(bytes(problem(404, 2004, "No dead letter has this id.").body))
        return JSONResponse(
            {
                "results": [
                    {"id": one, "status_code": 200, "dead_letter": known[one]}
                    if one in known
                    else {"id": one, "status_code": 404, "error": missing}
                    for one in ids
                ]
            }
        )

    async def _cancel(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["task_id"])
        if task is None:
            return problem(404, 2001, "No task has this id.")
        if task["status"] in ("completed", "failed", "cancelled"):
            return problem(400, 2002, "The task has ended.")
        task["status"] = "cancelled"
        return JSONResponse({"task_id": task["task_id"], "status": "cancelled"})

    async def _feed(self, socket: WebSocket) -> None:
        await socket.accept()
        query = dict(socket.query_params)
        self.feeds.append(query)
        if query.get("after") == "-1":
            await socket.close(4400, "after must not be negative")
            return
        limit, code = self.cuts.pop(0) if self.cuts else (10**9, 1001)
        position = int(query.get("after", len(self.events)))
        begin = max(0, position - self.overlap)
        await socket.send_json({"type": "hello", "seq": position})
        self.then()
        try:
            await self._send(socket, begin, query.get("task_id"), limit)
            if code is None:
                await socket.receive()
                return
            await socket.close(code)
        except (WebSocketDisconnect, RuntimeError):
            return

    async def _send(self, socket: WebSocket, position: int, task_id: str | None, limit: int) -> None:
        while limit > 0 and not self.ended:
            for event in self.events[position : position + limit]:
                position = event["seq"]
                if task_id in (None, event["task_id"]):
                    await socket.send_json({"type": "event", "event": event})
                    limit -= 1
            await asyncio.sleep(0.01)


class Server:
    """Serves one fake after another at the same `url`, from a thread of its own."""

    def __init__(self) -> None:
        config = uvicorn.Config(
            self._answer, host="127.0.0.1", port=0, interface="asgi3", log_level="error", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._app = FakeOrchestrator().app()
        self.url = ""

    @contextmanager
    def serving(self, fake: FakeOrchestrator) -> Iterator[None]:
        """Let a fake answer as long as the block runs."""
        self._app = fake.app()
        yield
        fake.ended = True

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def start(self) -> None:
        ready = threading.Event()
        startup = self._server.startup

        async def startup_and_tell(sockets: Any = None) -> None:
            await startup(sockets)
            ready.set()

        self._server.startup = startup_and_tell  # type: ignore[method-assign]
        self._thread.start()
        assert ready.wait(10)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
