"""The program that hands tasks to Chiffon over REST and follows them over WebSocket."""

import asyncio
import json
import os
import time

import uvloop
from websockets.asyncio.client import connect

from bench.caller import Caller, new_task
from bench.chiffon_server import TOKEN, URL
from bench.handing_in import main, shares

IN_ONE_CALL = 500
BULK_CALLERS = 4


class ChiffonCaller:
    """What a user's program does."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        uvloop.run(self._produce(count, BULK_CALLERS if bulk else callers, in_one_call=IN_ONE_CALL if bulk else 1))

    def latency(self, count: int) -> list[float]:
        return uvloop.run(self._latency(count))

    async def _produce(self, count: int, callers: int, *, in_one_call: int) -> None:
        async def run(share: int) -> None:
            caller = Caller(self._url, self._token)
            await caller.open()
            for begin in range(0, share, in_one_call):
                if in_one_call == 1:
                    await caller.post("/api/v1/dispatch", new_task())
                else:
                    tasks = [new_task() for _ in range(min(in_one_call, share - begin))]
                    await caller.post("/api/v1/dispatch/batch", {"tasks": tasks})
            await caller.close()

        await asyncio.gather(*(run(share) for share in shares(count, callers)))

    async def _latency(self, count: int) -> list[float]:
        """Time each task from its dispatch to the event of its end, as a subscriber sees it."""
        caller = Caller(self._url, self._token)
        await caller.open()
        url = self._url.replace("http://", "ws://", 1) + "/api/v1/ws?type=task.completed"
        seconds = []
        async with connect(url, additional_headers={"authorization": f"Bearer {self._token}"}, proxy=None) as socket:
            await socket.recv()
            for _ in range(count):
                task = new_task()
                began = time.monotonic()
                await caller.post("/api/v1/dispatch", task)
                while json.loads(await socket.recv()).get("event", {}).get("task_id") != task["task_id"]:
                    pass
                seconds.append(time.monotonic() - began)
        await caller.close()
        return seconds


if __name__ == "__main__":
    main(ChiffonCaller(os.environ[URL], os.environ[TOKEN]))
