"""A FastAPI app that hands work to a worker of its own process: uvicorn examples.in_process_app:app

People of PEOPLE approve what writes: POST /approvals/{execution_id} with their token. Put your own sign-in there.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from chiffon.in_process import (
    ApprovalForbidden,
    ApprovalNotPossible,
    OrchestratorService,
    UnknownExecution,
    ops_router,
)

PEOPLE: dict[str, str] = {}  # names by token, from where your app keeps its secrets
NOTES: list[str] = []


async def summarise(payload: Mapping[str, Any]) -> Any:
    """What the worker runs for the command `summarise`; put your own work here."""
    return {"words": len(str(payload["text"]).split())}


async def publish(payload: Mapping[str, Any]) -> Any:
    """What the worker runs for the command `publish`, once a person has approved it."""
    NOTES.append(str(payload["text"]))
    return {"notes": len(NOTES)}


# With a store, nothing is lost when the process ends: OrchestratorService(store="app.db")
service = OrchestratorService(retries=1)
service.register("summarise", summarise, effect="read")
service.register("publish", publish, effect="write")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with service:
        await service.start_worker()
        yield


def person(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """Return the name of the person whose token the request has."""
    name = PEOPLE.get(credentials.credentials)
    if name is None:
        raise HTTPException(401, "unknown token")
    return name


Person = Annotated[str, Depends(person)]
app = FastAPI(lifespan=lifespan)
app.include_router(ops_router(service))


@app.post("/chat/{message_id}", status_code=202)
async def chat(message_id: str, message: dict[str, Any]) -> dict[str, str]:
    """Take a message and answer at once; the worker does the work. The same id again is the same work."""
    execution = await service.submit_execution("summarise", message, execution_id=message_id)
    return {"execution_id": execution.execution_id, "status": execution.status}


@app.post("/notes/{note_id}", status_code=202)
async def note(note_id: str, text: dict[str, Any]) -> dict[str, str]:
    """Take a note that waits until a person approves it."""
    execution = await service.submit_execution("publish", text, execution_id=note_id)
    return {"execution_id": execution.execution_id, "status": execution.status}


@app.get("/executions/{execution_id}")
async def answer(execution_id: str) -> dict[str, Any]:
    execution = await service.queue.store.get(execution_id)
    return {"status": execution.status, "result": execution.result, "error": execution.error_message}


@app.get("/approvals")
async def approvals(_: Person) -> list[dict[str, Any]]:
    """Return what waits for approval, with exactly what would run."""
    return [asdict(execution) for execution in await service.awaiting_approval()]


@app.post("/approvals/{execution_id}")
async def approve(execution_id: str, by: Person) -> dict[str, str]:
    try:
        return {"status": (await service.approve(execution_id, by=by)).status}
    except UnknownExecution as error:
        raise HTTPException(404, str(error)) from None
    except ApprovalForbidden as error:
        raise HTTPException(403, str(error)) from None
    except ApprovalNotPossible as error:
        raise HTTPException(409, str(error)) from None
