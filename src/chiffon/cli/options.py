"""Options that several commands share, and the way in which they run a client."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import ValidationError

from chiffon.cli.console import say
from chiffon.cli.outcome import Exit
from chiffon.client import DEFAULT_SERVER, Client
from chiffon.errors import AnswerNotUnderstood

Flag = Parameter(negative=())
# A file; a single `-` stands for standard input.
TextSource = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


@Parameter(name="*")
@dataclass(frozen=True)
class Printing:
    """How an answer is printed."""

    output: Annotated[
        Literal["table", "json", "jsonl"],
        Parameter(name=["--output", "-o"], help="For people, or for programs; one JSON value a line."),
    ] = "table"

    @property
    def is_json(self) -> bool:
        return self.output != "table"


@Parameter(name="*")
@dataclass(frozen=True)
class Target(Printing):
    """Which orchestrator is asked, and how its answer is printed."""

    server: Annotated[str, Parameter(env_var="CHIFFON_SERVER", help="Address of the orchestrator.")] = DEFAULT_SERVER
    token: Annotated[
        str | None,
        Parameter(
            env_var="CHIFFON_TOKEN",
            help="Who asks; else the file CHIFFON_TOKEN_FILE, or what `chiffon up` keeps for its server.",
        ),
    ] = field(default=None, repr=False)

    def run(self, work: Callable[[Client], Awaitable[int]], *, resume: str = "") -> int:
        """Run `work` with a client and return its exit status; after Ctrl-C say how to `resume`."""
        try:
            return asyncio.run(self._with_client(work))
        except KeyboardInterrupt:
            if resume:
                say("", f"Detached; the work goes on. To see it again: {resume}")
            return Exit.INTERRUPTED

    async def _with_client(self, work: Callable[[Client], Awaitable[int]]) -> int:
        async with Client(self.server, token=self.token) as client:
            try:
                return await work(client)
            except ValidationError as error:
                raise AnswerNotUnderstood(error) from None


AS_TABLE = Printing()
HERE = Target()
