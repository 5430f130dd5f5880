"""Runs, repairs and artifacts as an orchestrator answers about them; nothing runs, a run stands as a test says."""

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

NOW = "2026-11-30T10:00:00+00:00"
LATER = "2026-11-30T10:00:02.500000+00:00"
TIMES = {"created_at": NOW, "queued_at": NOW, "started_at": NOW, "finished_at": None}
NOTHING = dict.fromkeys(("key", "service", "error_message", "cancelled_by", "waits_for"))


def problem(status: int, code: int, message: str) -> JSONResponse:
    body = {"status": status, "title": "No", "detail": message, "error_code": code, "error_message": message}
    return JSONResponse(body | {"trace_id": str(uuid4())}, status, media_type="application/problem+json")


def make_step(step: str, status: str = "pending", **how: Any) -> dict[str, Any]:
    """Return a step as `GET /api/v1/runs/{run_id}` shows it."""
    begun = status != "pending"
    known = {"step": step, "kind": "step", "number": int(begun), "status": status, "work_type": "echo", "inner": []}
    known |= {"task_id": str(uuid4()) if begun else None, "attempt": int(begun), "started_at": NOW if begun else None}
    known |= {"finished_at": LATER if status in ("succeeded", "failed", "cancelled") else None}
    return known | how


def squeezed(printed: str) -> list[str]:
    """Return the lines, with one blank between cells and without the time of day."""
    return [re.sub(r"^\d\d:\d\d:\d\d\.\d+ ", "", re.sub(" +", " ", line).strip()) for line in printed.splitlines()]


class FakeRuns:
    """Its state is public: tests arrange it and look at it."""

    def __init__(self, fake: "FakeOrchestrator") -> None:
        self._fake = fake
        self.runs: dict[str, dict[str, Any]] = {}
        self.started: list[dict[str, Any]] = []
        self.orders: list[tuple[str, str, dict[str, Any]]] = []
        """What was asked: of which address, about which run, with which body."""
        self.queries: list[dict[str, str]] = []
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        """Of runs and of tasks, by their ids."""
        self.contents: dict[str, bytes] = {}
        self.uploaded: list[bytes] = []
        self.lost_answers = 0
        self.looks: list[dict[str, Any]] = []
        """What is otherwise with each look at a run to come, and stays so."""

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/runs", self._start, methods=["POST"]),
            Route("/api/v1/runs", self._list),
            Route("/api/v1/runs/{run_id}", self._show),
            Route("/api/v1/runs/{run_id}/artifacts", self._artifacts_of_run),
            Route("/api/v1/runs/{run_id}/{order}", self._order, methods=["POST"]),
            Route("/orchestrator/runs", self._repair, methods=["POST"]),
            Route("/orchestrator/runs/{run_id}/{order}", self._order, methods=["POST"]),
            Route("/api/v1/tasks/{run_id}/artifacts", self._artifacts_of_task),
            Route("/api/v1/artifacts/{artifact_id}", self._content),
            Route("/api/v1/uploads", self._upload, methods=["POST"]),
        ]

    def add(self, run_id: str, *steps: dict[str, Any], status: str = "running", **how: Any) -> dict[str, Any]:
        """Have a run stand so."""
        run: dict[str, Any] = {
            "run_id": run_id,
            "request_id": str(uuid4()),
            "trace_id": str(uuid4()),
            "name": "nightly",
        }
        run |= {"status": status, "requested_by": "ann", **TIMES, **NOTHING, "plan": {}, "inputs": {}, "about": {}}
        run |= {"steps": list(steps), "earlier": []} | how
        self.runs[run_id] = run
        return run

    def add_event(self, kind: str, run_id: str, task_id: str | None = None, /, **data: Any) -> None:
        self._fake.add_event(kind, task_id, run_id=run_id, **data)

    def add_artifact(self, of: str, name: str, content: bytes, **how: Any) -> dict[str, Any]:
        artifact: dict[str, Any] = {
            "artifact_id": str(uuid4()),
            "task_id": str(uuid4()),
            "attempt": 1,
            "name": name,
            "path": name,
        }
        artifact |= {"type": "file", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        artifact |= {"created_at": NOW, "stored_at": NOW, "missing": None, "link": None} | how
        self.artifacts.setdefault(of, []).append(artifact)
        self.contents[artifact["artifact_id"]] = content
        return artifact

    async def _start(self, request: Request) -> Response:
        body = await request.json()
        self.started.append(body)
        run = self.runs.get(body["run_id"]) or self.add(body["run_id"], status="pending")
        if self.lost_answers > 0:
            self.lost_answers -= 1
            return Response(status_code=503)
        return JSONResponse(run, 201)

    async def _repair(self, request: Request) -> Response:
        body = await request.json()
        self.started.append(body)
        if body["target_service"] != "web":
            return problem(400, 2013, "There is no such service.")
        run_id = str(uuid4())
        self.add(run_id, status="succeeded", service="web")
        repair = {"run_id": run_id, "status": "pending", "target_service": "web", "instruction": body["instruction"]}
        rest = {"priority": body["priority"], "queued_at": NOW, "started_at": None, "completed_at": None}
        return JSONResponse(repair | rest | {"approval_required": False, "approval_status": "not_required"}, 202)

    async def _list(self, request: Request) -> Response:
        self.queries.append(dict(request.query_params))
        return JSONResponse({"items": list(self.runs.values()), "next_cursor": "more"})

    async def _show(self, request: Request) -> Response:
        run = self.runs.get(request.path_params["run_id"])
        if run is None:
            return problem(404, 2010, "No run has this id.")
        if self.looks:
            run |= self.looks.pop(0)
        return JSONResponse(run)

    async def _order(self, request: Request) -> Response:
        run_id, order = request.path_params["run_id"], request.path_params["order"]
        address = "/".join(part for part in request.url.path.split("/") if part not in (run_id, ""))
        self.orders.append((address, run_id, json.loads(await request.body() or b"{}")))
        run = self.runs.get(run_id)
        if run is None:
            return problem(404, 2010, "No run has this id.")
        if order == "cancel" and run["finished_at"] is not None:
            return problem(409, 2011, "The run has ended.")
        if order in ("approve", "reject") and all(step["status"] != "awaiting_approval" for step in run["steps"]):
            return problem(409, 2011, "The run waits for no approval.")
        if request.url.path.startswith("/orchestrator"):
            repair = {"run_id": run_id, "status": "pending", "target_service": "web", "instruction": "i"}
            rest = {"priority": "normal", "queued_at": NOW, "started_at": None, "completed_at": None}
            return JSONResponse(repair | rest | {"approval_required": False, "approval_status": "not_required"}, 202)
        return JSONResponse(run)

    async def _artifacts_of_run(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        if run_id not in self.runs:
            return problem(404, 2010, "No run has this id.")
        return JSONResponse({"items": self.artifacts.get(run_id, [])})

    async def _artifacts_of_task(self, request: Request) -> Response:
        found = self.artifacts.get(request.path_params["run_id"])
        return problem(404, 2001, "No task has this id.") if found is None else JSONResponse({"items": found})

    async def _content(self, request: Request) -> Response:
        content = self.contents.get(request.path_params["artifact_id"])
        if content is None:
            return problem(404, 2012, "No artifact has this id.")
        return Response(content, media_type="application/octet-stream")

    async def _upload(self, request: Request) -> Response:
        content = await request.body()
        self.uploaded.append(content)
        return JSONResponse({"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})
