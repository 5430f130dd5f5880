"""The documentation of the REST API: an OpenAPI document, and pages that show it without loading from other hosts.

Swagger UI's files are those of the pinned package `fastapi-offline`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from orchestrator.http.context import POLICY, POLICY_HEADER

PIECE_BYTES = 64 * 1024
OPENAPI = "/openapi.json"


class File(NamedTuple):
    package: str
    name: str
    media_type: str


OURS, SWAGGER_UI = "orchestrator.http", "fastapi_offline"
FILES: Mapping[str, File] = MappingProxyType(
    {
        "/docs": File(OURS, "pages/docs.html", "text/html"),
        "/docs/start.js": File(OURS, "pages/start.js", "text/javascript"),
        "/docs/swagger-ui.css": File(SWAGGER_UI, "static/swagger-ui.css", "text/css"),
        "/docs/swagger-ui-bundle.js": File(SWAGGER_UI, "static/swagger-ui-bundle.js", "text/javascript"),
        "/docs/favicon.png": File(SWAGGER_UI, "static/favicon.png", "image/png"),
    }
)
PATHS = frozenset({OPENAPI, *FILES})
# Swagger UI's style sheet holds its icons.
DOCS_POLICY = POLICY + b"; img-src 'self' data:"


class InPieces(Response):
    """Sends its content piece by piece, so that a slow reader holds one piece of memory and not a copy of it all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        content = memoryview(self.body)
        for begin in range(0, len(content), PIECE_BYTES):
            piece = bytes(content[begin : begin + PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def install(app: FastAPI) -> None:
    """Serve the documentation of an app, which has all its routes."""

    @cache
    def document() -> bytes:
        return bytes(JSONResponse(app.openapi()).body)

    @app.get(OPENAPI, include_in_schema=False)
    async def get_openapi() -> Response:
        return InPieces(document(), media_type="application/json")

    async def get_file(request: Request) -> Response:
        wanted: str = request.scope["path"]
        file = FILES[wanted]
        headers = {POLICY_HEADER.decode(): DOCS_POLICY.decode()} if wanted == "/docs" else None
        return InPieces(_content(file), media_type=file.media_type, headers=headers)

    for path in FILES:
        app.get(path, include_in_schema=False)(get_file)


@cache
def _content(file: File) -> bytes:
    return files(file.package).joinpath(file.name).read_bytes()
