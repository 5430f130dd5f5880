"""A FastAPI app that hands work to a worker of its own process: uvicorn examples.in_process_app:app"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from chiffon.in_process import Execution, OrchestratorService, Refusal, ops_router

APPROVED = {"ticket-4711"}


async def summarise(payload: Mapping[str, Any]) -> Any:
    """What the worker runs for the command `summarise`; put your own work here."""
    return {"words": len(str(payload["text"]).split())}


async def only_what_is_approved(execution: Execution) -> Refusal | None:
    """Asked right before anything starts."""
    if execution.command == "shell_script" and execution.approval_id not in APPROVED:
        return Refusal("programs need an approval")
    return None


# With a store, nothing is lost when the process ends: OrchestratorService("file:///var/lib/app/bus", store="app.db")
service = OrchestratorService(retries=1, gate=only_what_is_approved)
service.register("summarise", summarise)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with service:
        await service.start_worker()
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(ops_router(service))


@app.post("/chat/{message_id}", status_code=202)
async def chat(message_id: str, message: dict[str, Any]) -> dict[str, str]:
    """Take a message and answer at once; the worker does the work. The same id again is the same work."""
    execution = await service.submit_execution("summarise", message, execution_id=message_id)
    return {"execution_id": execution.execution_id, "status": execution.status}


@app.get("/chat/{message_id}")
async def answer(message_id: str) -> dict[str, Any]:
    execution = await service.queue.store.get(message_id)
    return {"status": execution.status, "result": execution.result, "error": execution.error_message}
