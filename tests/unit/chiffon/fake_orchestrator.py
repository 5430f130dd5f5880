"""An orchestrator that speaks HTTP and WebSocket like the real one and runs nothing: a dispatch ends as it is told."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

NOW = datetime(2026, 11, 22, tzinfo=UTC).isoformat()


def problem(status: int, code: int, message: str) -> JSONResponse:
    body = {"status": status, "title": "No", "detail": message, "error_code": code, "error_message": message}
    return JSONResponse(body | {"trace_id": str(uuid4())}, status, media_type="application/problem+json")


class FakeOrchestrator:
    """Its state is public: tests arrange it and look at it."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.dispatches: list[dict[str, Any]] = []
        self.lost_answers = 0
        self.outcome: dict[str, Any] = {"status": "completed", "exit_code": 0}
        self.output: list[tuple[str, str]] = [("stdout", "hello\n")]
        self.feeds: list[dict[str, str]] = []
        self.cuts: list[tuple[int, int]] = []
        """For each connection to come: after how many events it is closed, and with which code."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/dispatch", self._dispatch, methods=["POST"]),
                Route("/api/v1/status/{task_id}", self._status),
                Route("/api/v1/tasks", self._tasks),
                Route("/api/v1/tasks/{task_id}/output", self._output),
                Route("/api/v1/tasks/{task_id}/events", self._events),
                Route("/api/v1/agents", self._agents),
                Route("/api/v1/cancel/{task_id}", self._cancel, methods=["POST"]),
                WebSocketRoute("/api/v1/ws", self._feed),
            ]
        )

    def add_event(self, kind: str, task_id: str | None, **data: Any) -> None:
        seq = len(self.events) + 1
        event = {"seq": seq, "at": NOW, "kind": kind, "task_id": task_id, "attempt": 1, "data": data}
        self.events.append(event)

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
        self.tasks[task_id] |= {"output": tail, "attempt": 1, "started_at": NOW, "duration_ms": 12}
        if outcome["status"] in ("completed", "failed", "cancelled"):
            self.add_event(f"task.{outcome['status']}", task_id, output_bytes=ends)

    async def _dispatch(self, request: Request) -> Response:
        body = await request.json()
        self.dispatches.append(body)
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

    async def _agents(self, request: Request) -> Response:
        return JSONResponse([])

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
        await socket.send_json({"type": "hello", "seq": position})
        try:
            await self._send(socket, position, query.get("task_id"), limit)
            await socket.close(code)
        except (WebSocketDisconnect, RuntimeError):
            return

    async def _send(self, socket: WebSocket, position: int, task_id: str | None, limit: int) -> None:
        while limit > 0:
            for event in self.events[position : position + limit]:
                position = event["seq"]
                if task_id in (None, event["task_id"]):
                    await socket.send_json({"type": "event", "event": event})
                    limit -= 1
            await asyncio.sleep(0.01)


class Served:
    """The fake, answering at `url` from a thread of its own."""

    def __init__(self, fake: FakeOrchestrator) -> None:
        config = uvicorn.Config(fake.app(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.fake = fake
        self.url = ""

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
