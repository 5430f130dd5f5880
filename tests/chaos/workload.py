"""Clients that dispatch and cancel all the time, and write down what they were told."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

from common.http_client import trust_for
from tests.chaos.history import Call, History, Submitted
from tests.chaos.journal import TICK_SECONDS, script_parameters
from tests.chaos.plan import Settings

TIMEOUT_SECONDS = 6.0
# Nothing was sent, so nothing can have happened.
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)
# How many tasks of the one concurrency key may run at a time.
FEW = 3


class Workload:
    """Several clients, each with a random order of its own that the seed decides."""

    def __init__(
        self, urls: Mapping[str, str], journal: Path, history: History, *, seed: int, secret: str, settings: Settings
    ) -> None:
        self._urls = urls
        self._journal = journal
        self._history = history
        self._seed = seed
        self._secret = secret
        self._per_second = settings.dispatches_per_second
        self._most_ticks = int(settings.longest_work_seconds / TICK_SECONDS)
        self._http = httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, verify=trust_for("http:"))

    async def run(self, stop: asyncio.Event, *, clients: int = 4) -> None:
        """Work until `stop` is set and every call has ended."""
        async with self._http, asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number, clients, stop), name=f"client {number}")

    async def _client(self, number: int, clients: int, stop: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                where = chance.choice(sorted(self._urls))
                if chance.random() < 0.1:
                    calls.create_task(self.cancel_one(chance, where))
                count = chance.randint(2, 8) if chance.random() < 0.15 else 1
                tasks = [self.make(chance) for _ in range(count)]
                # Tasks of one key are dispatched by one call after another, so their order is known.
                await self.dispatch(chance, where, tasks)
                pause = chance.expovariate(self._per_second / clients / 1.5)
                try:
                    async with asyncio.timeout(min(pause, 3.0)):
                        await stop.wait()
                except TimeoutError:
                    pass

    def make(self, chance: random.Random) -> Submitted:
        """Return new work of some kind."""
        work = str(_uuid(chance))
        idempotent = chance.random() < 0.6
        body: dict[str, Any] = {
            "task_id": work,
            "request_id": str(_uuid(chance)),
            "priority": chance.randint(1, 5),
            "idempotent": idempotent,
        }
        if idempotent and chance.random() < 0.2:
            body["max_attempts"] = chance.randint(2, 5)
        kind = "echo" if chance.random() < 0.1 else "shell_script"
        if kind == "echo":
            parameters: dict[str, Any] = {"message": "hello"}
        else:
            parameters = script_parameters(
                work,
                self._journal,
                ticks=chance.randint(30, self._most_ticks) if chance.random() < 0.08 else chance.randint(0, 7),
                code=3 if chance.random() < 0.05 else 0,
                size=100_000 if chance.random() < 0.03 else 0,
                stubborn=chance.random() < 0.05,
                secret=self._secret if chance.random() < 0.2 else "",
            )
        kind_of_limit = chance.random()
        if kind_of_limit < 0.12:
            body["ordering_key"] = f"key-{chance.randint(1, 6)}"
        elif kind_of_limit < 0.25:
            body |= {"concurrency_key": "few-at-a-time", "concurrency_limit": FEW}
        if chance.random() < 0.05:
            body["expires_after_seconds"] = chance.randint(1, 20)
        body |= {"work_type": kind, "parameters": parameters}
        submitted = Submitted(work, work, body, kind)
        self._history.submitted[work] = submitted
        return submitted

    async def dispatch(self, chance: random.Random, where: str, tasks: Sequence[Submitted]) -> None:
        """Dispatch in one call; when its outcome is unknown, or now and then for no reason, send the same again."""
        call = await self._send(where, tasks)
        repeats = 0
        while call.outcome != "ok" and repeats < 4 and chance.random() < 0.6:
            repeats += 1
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            call = await self._send(chance.choice(sorted(self._urls)), tasks)
        if call.outcome == "ok" and chance.random() < 0.05:
            await self._send(chance.choice(sorted(self._urls)), tasks, again=True)

    async def cancel_one(self, chance: random.Random, where: str) -> None:
        """Cancel some task that was dispatched lately."""
        recent = list(self._history.submitted)[-30:]
        if not recent:
            return
        task_id = chance.choice(recent)
        call = self._history.invoke("cancel", where, task_id)
        answer = await self._post(call, f"{self._urls[where]}/api/v1/cancel/{task_id}", None)
        if answer is not None:
            call.end("ok", accepted=[task_id])

    async def _send(self, where: str, tasks: Sequence[Submitted], *, again: bool = False) -> Call:
        single = len(tasks) == 1
        kind: Any = "repeat" if again else "dispatch" if single else "batch"
        call = self._history.invoke(kind, where, *(task.task_id for task in tasks))
        url = f"{self._urls[where]}/api/v1/dispatch"
        if single:
            answer = await self._post(call, url, tasks[0].body)
            if answer is not None:
                call.end("ok", accepted=[answer["task_id"]])
            return call
        answer = await self._post(call, f"{url}/batch", {"tasks": [task.body for task in tasks]})
        if answer is not None:
            accepted = [item["task"]["task_id"] for item in answer["results"] if item["task"]]
            refused = [item for item in answer["results"] if not item["task"]]
            # An item that was not accepted because something was away may exist all the same.
            call.end("ok" if not refused else "unknown", str(refused)[:500] if refused else "", accepted=accepted)
        return call

    async def _post(self, call: Call, url: str, body: Any) -> Any:
        """Return the answer of a success; otherwise end the call as failed or unknown and return None."""
        try:
            response = await self._http.post(url, json=body)
        except NEVER_SENT as failure:
            call.end("fail", repr(failure))
        except httpx2.HTTPError as failure:
            call.end("unknown", repr(failure))
        else:
            if response.is_success:
                return response.json()
            call.end("unknown" if response.status_code >= 500 else "fail", f"{response.status_code} {response.text}")
        return None


def _uuid(chance: random.Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)
