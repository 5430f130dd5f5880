"""Repair a service in a process of its own, which may be killed.

python -m tests.integration.repairs.alone FILE
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from agents.executors.compose import ComposeExecutor
from agents.processes.keepers import Keepers
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.repairs.store import Store
from tests.unit.agents.executing import Output, make_context
from tests.unit.agents.repairs.workshop import Told, carry_out


async def repair(asked: dict[str, Any]) -> None:
    folder, told = Path(asked["folder"]), Told()
    executor = ComposeExecutor(folder / "srv", Store.below(folder / "state"))
    with Keepers() as keepers:
        context = make_context(
            folder,
            keepers,
            Output(),
            inherited=asked["environment"],
            ids={TASK_VARIABLE: str(uuid4()), ATTEMPT_VARIABLE: "1", "CHIFFON_TRACE_ID": str(uuid4())},
            lasting=keepers,
            step=told.step,
            keep=told.keep,
        )
        await carry_out(executor, asked["parameters"], context)


if __name__ == "__main__":
    asyncio.run(repair(json.loads(Path(sys.argv[1]).read_text())))
