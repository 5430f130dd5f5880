"""The Python client of the orchestrator."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

from chiffon.access import Access
from chiffon.approvals import Approvals
from chiffon.artifacts import Artifacts
from chiffon.credentials import find_token
from chiffon.errors import ApiError
from chiffon.feed import Connected, Feed, Filter
from chiffon.http import Http, check_address
from chiffon.operations import AnyId as AnyId
from chiffon.operations import Operations
from chiffon.runs import RunNews, Runs, after_event, ends_the_run, needs_the_ledger
from common.rest.agents import Agent
from common.rest.bodies import body_of
from common.rest.events import Event, EventPage
from common.rest.fan_outs import FanOut, is_over
from common.rest.fan_outs import after_event as fan_out_after
from common.rest.runs import Run
from common.rest.tasks import (
    BatchRequest,
    BatchResponse,
    BatchResult,
    DispatchRequest,
    DispatchResponse,
    OutputPage,
    TaskPage,
    TaskStatus,
)
from common.rest.why import Why
from common.rest.work_types import KnownWorkType

DEFAULT_SERVER = "http://127.0.0.1:8420"
NORMAL_PRIORITY = 3
NOT_READY = 503


def hints_of(
    *,
    agent_type: str | None = None,
    agent_id: AnyId | None = None,
    required: Mapping[str, Any] | None = None,
    preferred: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return where work should go, as a dispatch and a request for an approval say it."""
    hints = {
        "agent_type": agent_type,
        "agent_id": agent_id,
        "required_capabilities": required or None,
        "preferred": preferred or None,
    }
    return {name: hint for name, hint in hints.items() if hint is not None}


class Client(Approvals, Artifacts, Operations, Runs, Access):
    """Speaks to one orchestrator; use it as an async context manager.

    Calls raise `ApiError` when the orchestrator says no and `ServerUnreachable` when it cannot be reached. A call that
    lasts (`watch`, `wait`) survives an outage of up to `patience`. Without a `token` that of the environment is used,
    or what `chiffon up` keeps for its server; see `chiffon.credentials`.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_SERVER,
        *,
        token: str | None = None,
        timeout: timedelta = timedelta(seconds=30),
        patience: timedelta = timedelta(minutes=5),
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        check_address(base_url)
        self.base_url = base_url.rstrip("/")
        self._token = find_token(self.base_url) if token is None else token
        self._http = Http(self.base_url, timeout=timeout, token=self._token, transport=transport)
        self._patience = patience

    @property
    def http(self) -> Http:
        """The requests themselves, for what this class has no method for."""
        return self._http

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def dispatch(
        self,
        work_type: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        priority: int = NORMAL_PRIORITY,
        agent_type: str | None = None,
        agent_id: AnyId | None = None,
        required: Mapping[str, Any] | None = None,
        preferred: Mapping[str, Any] | None = None,
        task_id: AnyId | None = None,
        request_id: AnyId | None = None,
        trace_id: AnyId | None = None,
        idempotent: bool = False,
        max_attempts: int | None = None,
        ordering_key: str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        expires_after: timedelta | None = None,
        approval_id: AnyId | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        on: Mapping[str, Any] | None = None,
        batch: int | str | None = None,
        stop_after_failures: int | None = None,
    ) -> DispatchResponse:
        """Hand in one task, or with `on` one for each of several agents.

        The task's id is made here when none is given, so that a lost answer is repeated safely: the same id with the
        same content exists once. Tasks of one `ordering_key` run one after another; of those of a `concurrency_key` at
        most `concurrency_limit` run at a time. A task that waits longer than `expires_after` is cancelled. It goes to
        the agent `agent_id`, or to agents that have all `required` labels, rather to those with the `preferred` ones.
        `approval_id` is an approval that was asked for beforehand. `name` and `labels` are for people.

        `on` is {"all": True}, {"labels": {…}} or {"agents": [names or ids]}; `task_id` is then the id of the fan-out.
        `batch` agents work at a time, a number or a percentage like "10%"; after `stop_after_failures` none begins.
        """
        body = body_of(
            DispatchRequest,
            task_id=task_id or uuid4(),
            work_type=work_type,
            parameters=parameters,
            priority=priority,
            hints=hints_of(agent_type=agent_type, agent_id=agent_id, required=required, preferred=preferred),
            request_id=request_id,
            trace_id=trace_id,
            idempotent=idempotent,
            max_attempts=max_attempts,
            ordering_key=ordering_key,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            expires_after_seconds=None if expires_after is None else expires_after.total_seconds(),
            approval_id=approval_id,
            name=name,
            labels=labels or None,
            on=on,
            batch=batch,
            stop_after_failures=stop_after_failures,
        )
        return await self.hand_in(body)

    async def hand_in(self, body: Mapping[str, Any]) -> DispatchResponse:
        """Hand in one task by its whole body, as of `POST /api/v1/dispatch`, which has a `task_id`."""
        return DispatchResponse.model_validate(await self._http.post("/api/v1/dispatch", dict(body), repeatable=True))

    async def dispatch_batch(self, tasks: Sequence[Mapping[str, Any]]) -> list[BatchResult]:
        """Hand in up to 1,000 tasks (bodies as of `POST /api/v1/dispatch`); each is answered on its own."""
        body = body_of(BatchRequest, tasks=[{"task_id": str(uuid4()), **task} for task in tasks])
        answer = await self._http.post("/api/v1/dispatch/batch", body, repeatable=True)
        return BatchResponse.model_validate(answer).results

    async def status(self, task_id: AnyId) -> TaskStatus:
        """Return where a task stands, with the end of its output."""
        return TaskStatus.model_validate(await self._http.get(f"/api/v1/status/{task_id}"))

    async def tasks(
        self,
        *,
        status: str | None = None,
        work_type: str | None = None,
        agent_type: str | None = None,
        agent_id: AnyId | None = None,
        trace_id: AnyId | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        requested_by: str | None = None,
        created_after: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> TaskPage:
        """Return a page of tasks, newest first; `next_cursor` leads to the next one."""
        query = {
            "status": status,
            "work_type": work_type,
            "agent_type": agent_type,
            "agent_id": None if agent_id is None else str(agent_id),
            "trace_id": None if trace_id is None else str(trace_id),
            "name": name,
            "label": [f"{label}={value}" for label, value in (labels or {}).items()] or None,
            "requested_by": requested_by,
            "created_after": None if created_after is None else created_after.isoformat(),
            "limit": limit,
            "cursor": cursor,
        }
        return TaskPage.model_validate(await self._http.get("/api/v1/tasks", query))

    async def output(
        self, task_id: AnyId, *, stream: str = "stdout", offset: int = 0, attempt: int | None = None
    ) -> OutputPage:
        """Return a piece of what a task wrote, from `offset` (UTF-8 bytes); by default of its last attempt."""
        query = {"stream": stream, "offset": offset, "attempt": attempt}
        return OutputPage.model_validate(await self._http.get(f"/api/v1/tasks/{task_id}/output", query))

    async def events(self, task_id: AnyId, *, after: int = 0, limit: int = 100) -> EventPage:
        """Return a page of what happened to a task, in order."""
        query = {"after": after, "limit": limit}
        return EventPage.model_validate(await self._http.get(f"/api/v1/tasks/{task_id}/events", query))

    async def why(self, task_id: AnyId) -> Why:
        """Return whether a task waits, and everything that is in its way."""
        return Why.model_validate(await self._http.get(f"/api/v1/tasks/{task_id}/why"))

    async def agents(
        self, *, agent_type: str | None = None, status: str | None = None, gone: bool = False
    ) -> list[Agent]:
        """Return the agents, with what they last said of themselves; with `gone` also those that went long ago."""
        query = {"agent_type": agent_type, "status": status, "gone": "true" if gone else None}
        found = await self._http.get("/api/v1/agents", query)
        return [Agent.model_validate(agent) for agent in found]

    async def work_types(self) -> list[KnownWorkType]:
        """Return what may be dispatched, and which agents offer it now."""
        return [KnownWorkType.model_validate(known) for known in await self._http.get("/api/v1/work-types")]

    async def cancel(self, task_id: AnyId) -> None:
        """Cancel a task; when this returns, it will not start, and is being stopped if it runs."""
        await self._http.post(f"/api/v1/cancel/{task_id}", repeatable=False)

    async def ready(self) -> bool:
        """Say whether the orchestrator is up and has everything that it needs."""
        try:
            await self._http.get("/ready", attempts=1)
        except ApiError as error:
            if error.status == NOT_READY:
                return False
            raise
        return True

    async def watch(
        self,
        *,
        trace_id: AnyId | None = None,
        task_id: AnyId | None = None,
        agent_id: AnyId | None = None,
        types: Iterable[str] = (),
        after: int | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Yield matching events as they happen, each once and in order, over any number of connections.

        With `after` everything since that sequence number comes first; without it, only what happens from now on.
        """
        async with aclosing(self._follow(Filter(trace_id, task_id, agent_id, tuple(types)), after)) as items:
            async for item in items:
                if isinstance(item, Event):
                    yield item

    async def wait(self, task_id: AnyId, *, progress: Callable[[str], None] = lambda _: None) -> TaskStatus:
        """Return the status of a task once it is final; meanwhile call `progress` with each report of where it stands,
        and with an empty text when an attempt begins.
        """
        async with aclosing(self._follow(Filter(task_id=task_id), None)) as items:
            async for item in items:
                # The status is asked for once the feed is open, so an end between the two is not missed.
                if isinstance(item, Connected) or item.ends_a_task:
                    status = await self.status(task_id)
                    if status.is_final:
                        return status
                    progress(status.progress)
                elif item.progress is not None:
                    progress(item.progress)
        raise AssertionError("a feed ends with an error only")

    async def fan_out(self, fan_out_id: AnyId) -> FanOut:
        """Return how work on several agents stands."""
        return FanOut.model_validate(await self._http.get(f"/api/v1/fan-outs/{fan_out_id}"))

    async def watch_fan_out(self, fan_out_id: AnyId) -> AsyncGenerator[FanOut, None]:
        """Yield a fan-out as it stands now and after each change, until all of its tasks have ended."""
        found = await self.fan_out(fan_out_id)
        async with aclosing(self._follow(Filter(trace_id=found.trace_id), None)) as items:
            async for item in items:
                if isinstance(item, Connected):
                    found = await self.fan_out(fan_out_id)
                elif (changed := fan_out_after(found, item)) is not None:
                    # What the last task brought is in the ledger by now, and in no event.
                    found = await self.fan_out(fan_out_id) if is_over(changed) else changed
                else:
                    continue
                yield found
                if is_over(found):
                    return

    async def watch_run(self, run_id: AnyId) -> AsyncGenerator[RunNews, None]:
        """Yield a run as it stands now, and after each event of its trace, until it has ended.

        Also events that change nothing of it, such as output, are yielded with the run as it stands. It ends with the
        last of them: what steps wrote before is yielded first, also when the ledger knows of the end already.
        """
        found = await self.run(run_id)
        async with aclosing(self._follow(Filter(trace_id=found.trace_id), None)) as items:
            async for item in items:
                if isinstance(item, Connected):
                    found = await self.run(run_id)
                    yield RunNews(found)
                else:
                    changed = after_event(found, item) or found
                    if needs_the_ledger(changed, item):
                        stored = await self.run(run_id)
                        # It may have been asked between the row of a step and its task, which the event names.
                        stored = after_event(stored, item) or stored
                        changed = changed if stored.is_final and not ends_the_run(stored, item) else stored
                    found = changed
                    yield RunNews(found, item)
                if found.is_final:
                    return

    async def wait_for_run(self, run_id: AnyId) -> Run:
        """Return a run once it has ended."""
        async with aclosing(self.watch_run(run_id)) as news:
            async for found, _ in news:
                if found.is_final:
                    return found
        raise AssertionError("a feed ends with an error only")

    def _follow(self, wanted: Filter, after: int | None) -> AsyncGenerator[Connected | Event, None]:
        return Feed(self.base_url, wanted, after=after, patience=self._patience, token=self._token).follow()
