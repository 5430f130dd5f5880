"""Whether the orchestrator is alive, and whether it can work."""

from pydantic import Field

from common.rest.base import Answer


class Alive(Answer):
    """The process answers, and has the broker and the database or not."""

    status: str = Field(default="alive", description="Always `alive`.", examples=["alive"])
    broker: bool | None = Field(default=None, description="Whether the broker answered lately; null before the start.")
    database: bool | None = Field(
        default=None, description="Whether the database answered lately; null before the start."
    )


class CheckResult(Answer):
    """The result of one check."""

    ok: bool = Field(description="Whether the check passed.")
    detail: str = Field(
        default="", description="What is wrong, or what was found; empty without the permission `read`."
    )


class Readiness(Answer):
    """Whether the orchestrator has everything that it needs."""

    status: str = Field(description="ready or not_ready", examples=["ready", "not_ready"])
    checks: dict[str, CheckResult] = Field(
        description="broker, database, schema, loops, probe and signatures, each on its own."
    )
