"""Turn dropped files into dispatches and their ends into files.

A file is claimed, dispatched under ids that follow from its name and content, and removed when its result is written.
So a crash at any point only means that the same dispatch is sent again, and answered with the same task.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from chiffon.client import Client
from chiffon.errors import ApiError, ServerUnreachable
from chiffon.spool.folders import BadFile, Folders, Found, open_folders
from chiffon.spool.orders import Malformed, Order, outgoing_name, read_order
from chiffon.spool.schedule import Candidate, Schedule
from chiffon.spool.watch import FolderWatch
from common.errors import ErrorCode
from common.loop import Wake
from common.rest.tasks import TaskStatus

log = logging.getLogger(__name__)

# With inotify the poll is for what nothing rings for: the end of a back-off or a grace.
FIRST_POLL = timedelta(milliseconds=200)
LONGEST_POLL = timedelta(seconds=2)
# 401 says that nobody looked at the file: a wrong token must not empty `incoming` into `failed`. Nor must one that is
# not enough, which is a 403 like that of a policy, told from it by its code.
PASSING = frozenset({401, 408, 429})


@dataclass(frozen=True, slots=True)
class Plan:
    """`limit` is in bytes of one file; `grace` is how long a file that is no JSON may still be being written."""

    root: Path
    concurrency: int = 8
    once: bool = False
    limit: int = 1_000_000
    grace: timedelta = timedelta(seconds=2)


class Spool:
    """Works on the files of one directory."""

    def __init__(self, plan: Plan, folders: Folders, client: Client) -> None:
        self._plan = plan
        self._folders = folders
        self._client = client
        self._schedule = Schedule(plan.concurrency)
        self._bell = Wake()
        self._keys: dict[Found, str | None] = {}

    async def run(self) -> None:
        """Work until cancelled, or until nothing is left when it is to run `once`."""
        await asyncio.to_thread(self._reconcile)
        watch = FolderWatch(self._folders.incoming, self._bell)
        watch.open()
        pause = FIRST_POLL
        try:
            async with asyncio.TaskGroup() as working:
                while True:
                    watch.watch()
                    started, left = await self._start_what_may(working)
                    if self._plan.once and not left and not self._schedule.running:
                        return
                    pause = FIRST_POLL if started or left else min(pause * 2, LONGEST_POLL)
                    await self._bell.wait(pause)
        finally:
            await watch.close()

    def _reconcile(self) -> None:
        self._folders.tidy()
        for found in self._folders.claimed():
            log.warning("spool.reconciled", extra={"file": found.name, "reason": "claimed before, result not written"})

    async def _start_what_may(self, working: asyncio.TaskGroup) -> tuple[int, int]:
        """Start what may start; return how much that was and how much is there, running included."""
        claimed, waiting = await asyncio.to_thread(lambda: (self._folders.claimed(), self._folders.waiting()))
        taken = {found.name for found in claimed}
        there = {*claimed, *waiting}
        self._keys = {found: key for found, key in self._keys.items() if found in there}
        if self._schedule.has_room:
            # What was claimed is older than anything of its key that waits, and blocks a new file of its name.
            old = self._candidates(self._folders.processing, claimed)
            new = self._candidates(self._folders.incoming, [found for found in waiting if found.name not in taken])
            chosen = self._schedule.choose(chain(old, new), now=time.monotonic())
        else:
            chosen = []
        for candidate in chosen:
            if candidate.name not in taken and not self._claim(candidate.name):
                continue
            self._schedule.started(candidate)
            working.create_task(self._work(candidate.name), name=f"spool {candidate.name}")
        return len(chosen), len(claimed) + len(waiting)

    def _candidates(self, folder: Path, files: list[Found]) -> Iterator[Candidate]:
        for found in files:
            if found.name in self._schedule.running:
                continue
            if found not in self._keys:
                try:
                    content = self._folders.read(folder, found.name, limit=self._plan.limit)
                    self._keys[found] = read_order(found.name, content).ordering_key
                except FileNotFoundError:
                    continue
                except Malformed:
                    if time.time() - found.mtime / 1e9 < self._plan.grace.total_seconds():
                        # It may still be being written; a new look will tell.
                        continue
                    self._keys[found] = None
                except BadFile:
                    self._keys[found] = None
            yield Candidate(found.name, self._keys[found])

    def _claim(self, name: str) -> bool:
        try:
            self._folders.claim(name)
        except FileNotFoundError:
            return False
        except OSError as failure:
            pause = self._schedule.postponed(name, now=time.monotonic())
            log.exception(
                "spool.not_claimed",
                extra={"file": name, "reason": str(failure), "again_in": pause.total_seconds()},
            )
            return False
        return True

    async def _work(self, name: str) -> None:
        """Bring one claimed file to its end; it is in `failed`, in `outgoing`, or postponed after this."""
        processing = self._folders.processing
        try:
            content = await asyncio.to_thread(self._folders.read, processing, name, limit=self._plan.limit)
            order = read_order(name, content)
            status = await self._result(order)
            await asyncio.to_thread(self._finish, name, order, status)
        except (BadFile, Malformed) as bad:
            await self._give_up(name, {"reason": str(bad)})
        except ApiError as answer:
            if passes(answer):
                self._postpone(name, f"HTTP {answer.status}: {answer.error_message}")
            else:
                refused = {"status": answer.status, "error_code": answer.error_code, "errors": list(answer.problems)}
                await self._give_up(name, {"reason": answer.error_message, **refused})
        except (ServerUnreachable, OSError) as failure:
            self._postpone(name, str(failure))
        except Exception as failure:
            log.exception("spool.unforeseen", extra={"file": name})
            self._postpone(name, repr(failure))
        else:
            self._schedule.ended(name)
        self._bell.ring()

    async def _result(self, order: Order) -> TaskStatus:
        await self._client.hand_in(order.body)
        log.info("spool.dispatched", extra={"task_id": order.task_id})
        return await self._client.wait(order.task_id)

    def _finish(self, name: str, order: Order, status: TaskStatus) -> None:
        # The time of the task, not of now: after a crash between writing and removing it is the same file again.
        at = status.finished_at or status.updated_at or datetime.now(UTC)
        result = {"channel": order.channel, "message_id": order.message, "file": name, **status.model_dump(mode="json")}
        written = self._folders.finish(name, outgoing_name(order, at=at), result)
        log.info("spool.finished", extra={"file": name, "result": written, "task_id": order.task_id})

    async def _give_up(self, name: str, reason: dict[str, object]) -> None:
        try:
            await asyncio.to_thread(self._folders.fail, self._folders.processing, name, reason)
        except OSError as failure:
            self._postpone(name, str(failure))
        else:
            self._schedule.ended(name)

    def _postpone(self, name: str, reason: str) -> None:
        pause = self._schedule.postponed(name, now=time.monotonic())
        # When a new file of the name was dropped meanwhile, this one stays claimed, and is the first of the two.
        put_back = self._folders.put_back(name)
        log.warning(
            "spool.postponed",
            extra={"file": name, "reason": reason, "again_in": pause.total_seconds(), "put_back": put_back},
        )


async def run_spool(plan: Plan, server: str, *, token: str | None = None) -> None:
    """Work on a directory. Raises `SpoolTaken` when another does, or when it cannot be used."""
    with open_folders(plan.root) as folders:
        async with Client(server, token=token) as client:
            await Spool(plan, folders, client).run()


def passes(answer: ApiError) -> bool:
    """Say whether an error may be gone the next time; one that is not the orchestrator's own may be a proxy's."""
    refused = 400 <= answer.status < 500 and answer.status not in PASSING and answer.error_code != ErrorCode.FORBIDDEN
    return not refused or answer.error_code is None
