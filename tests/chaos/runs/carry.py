"""Carry repairs out, kill what the plan says at the point it says, and look at what came of it."""

import asyncio
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import httpx2

from tests.chaos.logs import unexplained
from tests.chaos.runs import look
from tests.chaos.runs.evidence import Carried, Made
from tests.chaos.runs.holds import LOOK_SECONDS, read_state
from tests.chaos.runs.plan import Change, Kill, Repair
from tests.chaos.runs.world import PLAIN, READY_SECONDS, SHOWN, World
from tests.eventually import eventually

RUNS = "/orchestrator/runs"
FINAL = ("succeeded", "rolled_back", "failed")
TASKS = "SELECT task_id, status FROM run_step JOIN task USING (task_id) WHERE run_id = $1"
# Several times the pause after which an agent reports an end once more, and time for a rollback that waits for docker.
SETTLE_SECONDS = 150.0
ASK_SECONDS = 0.25
# What an approval is answered: taken, or it is too late for one, or the orchestrator cannot take it just now.
MAY_ANSWER = (200, 409, 503)
SCRIPTS = {
    Change.GOOD: "echo {text} > www/health",
    Change.BREAKS_BUILD: "echo {text} > www/health; echo exit 1 >> build.sh",
    Change.BREAKS_HEALTH: "rm www/health; echo {text} > www/other",
    Change.ENDS_AT_ONCE: "echo {text} > www/health; echo rm -r /www >> build.sh",
}
# What agents log when something happens that nobody has thought of, whatever is killed.
UNTHOUGHT = ("repair.failed", "repair.not_settled", "repair.unreadable", "repair.not_kept")


class Carrying:
    """One repair under way."""

    def __init__(self, world: World, number: int, repair: Repair) -> None:
        self._world = world
        self._number = number
        self._repair = repair
        self._run: dict[str, Any] = {}
        self._kills: list[Made] = []
        self._is_over = asyncio.Event()

    async def run(self) -> Carried:
        """Carry the repair out, and return what is to be judged."""
        world, text = self._world, f"pears-{self._number}"
        before = await asyncio.to_thread(look.look_at, world.shop)
        known = set(await asyncio.to_thread(self._errors))
        began = time.monotonic()
        self._arm()
        await self._ask(text)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(), name="follow")
            killing = group.create_task(self._kill_all(), name="kill")
            await self._settle()
            self._is_over.set()
            await killing
            following.cancel()
        seconds = time.monotonic() - began
        await eventually(world.is_ready, timeout=READY_SECONDS, every=ASK_SECONDS)
        await self._refresh()
        tasks = await self._tasks()
        return Carried(
            self._number,
            self._repair,
            f"{text}\n",
            self._run["run_id"],
            before,
            await asyncio.to_thread(look.look_at, world.shop),
            self._run["status"],
            {step["name"]: step["status"] for step in self._run.get("steps", ())},
            tasks,
            read_state(world.state),
            seconds,
            self._kills,
            is_held=await asyncio.to_thread(look.is_held, world.shop),
            unsent=look.unsent(world.shop),
            processes=await asyncio.to_thread(look.processes_of, list(tasks)),
            errors=[line for line in await asyncio.to_thread(self._errors) if line not in known],
        )

    async def _ask(self, text: str) -> None:
        body = {
            "instruction": str(self._repair.change),
            "target_service": SHOWN if self._repair.is_shown else PLAIN,
            "patch": {"commands": [["sh", "-c", SCRIPTS[self._repair.change].format(text=text)]]},
        }
        answer = await self._world.http.post(RUNS, json=body)
        assert answer.status_code == 202, answer.text
        self._run = answer.json()

    async def _follow(self) -> None:
        """Ask how the run stands, again and again, and agree when it waits for that."""
        while True:
            with suppress(httpx2.TransportError):
                await self._refresh()
                if self._run["status"] == "awaiting_approval":
                    path = f"/api/v1/runs/{self._run['run_id']}/approve"
                    answer = await self._world.approver.post(path, json={})
                    assert answer.status_code in MAY_ANSWER, answer.text
            await asyncio.sleep(ASK_SECONDS)

    async def _refresh(self) -> None:
        answer = await self._world.http.get(f"{RUNS}/{self._run['run_id']}")
        if answer.status_code == 200:
            self._run = answer.json()

    async def _settle(self) -> None:
        """Wait until the run has ended, the host too, and the orchestrator has what the host says about that; not for
        ever.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            state = read_state(self._world.state)
            is_said = not state or state["handed_over"] or state["end"] == "prepared"
            if self._run["status"] in FINAL and is_said and not look.unsent(self._world.shop):
                return
            await asyncio.sleep(ASK_SECONDS)

    def _arm(self) -> None:
        if self._repair.kills:
            self._world.holds.ask(self._repair.kills[0].point)

    async def _kill_all(self) -> None:
        """Make the kills, one after another, each when the repair comes to its point, if it does. What was killed
        starts again while the repair goes on.
        """
        async with asyncio.TaskGroup() as starting:
            for number, kill in enumerate(self._repair.kills):
                if number:
                    self._world.holds.ask(kill.point)
                while not self._world.holds.is_at(kill.point, self._run["run_id"]):
                    if self._is_over.is_set():
                        await self._world.holds.let_go()
                        return
                    await asyncio.sleep(LOOK_SECONDS)
                await self._kill(kill)
                starting.create_task(self._start(kill), name=f"start {kill.victim}")

    async def _kill(self, kill: Kill) -> None:
        await self._world.kill(kill.victim)
        state = read_state(self._world.state)
        await self._world.holds.let_go()
        self._kills.append(Made(kill, _place(state, self._run["run_id"]), time.time()))

    async def _start(self, kill: Kill) -> None:
        await asyncio.sleep(kill.pause)
        await self._world.start(kill.victim)

    async def _tasks(self) -> dict[str, str]:
        connection = await asyncpg.connect(self._world.database_url)
        try:
            rows = await connection.fetch(TASKS, UUID(self._run["run_id"]))
        finally:
            await connection.close()
        return {str(row["task_id"]): row["status"] for row in rows}

    def _errors(self) -> list[str]:
        logs = self._world.logs
        lines = (
            f"{path.name}: {text[:2000]}"
            for path in sorted(logs.glob("*.log"))
            for text in path.read_text(errors="replace").splitlines()
            if any(f'"event": "{event}"' in text for event in UNTHOUGHT)
        )
        return [*unexplained(logs), *lines]


def _place(state: dict[str, Any], run_id: str) -> str:
    """Return where a repair stands by its state file: within a step, or between two."""
    if state.get("run_id") != run_id:
        return "not begun"
    within = [one["name"] for one in state["reports"] if one["status"] == "in_progress"]
    ended = [one["name"] for one in state["reports"] if one["status"] != "in_progress"]
    where = f"in {within[-1]}" if within else f"after {ended[-1]}" if ended else "before analyze"
    return f"{where} ({state['stage']})"
