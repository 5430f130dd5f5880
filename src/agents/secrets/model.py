"""Where a secret comes from: settings, never the value."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.work import SecretName, WorkType

MOST_SECRETS = 100


class SecretSource(BaseModel):
    """Exactly one of `env`, `file` and `command`. `work_types`: which work may refer to it; None: any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = Field(default=None, min_length=1)
    file: str | None = Field(default=None, min_length=1)
    command: list[str] | None = Field(default=None, min_length=1)
    work_types: list[WorkType] | None = None

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.command)) != 1:
            raise ValueError("give exactly one of 'env', 'file' and 'command'")
        return self


SecretSources = Annotated[dict[SecretName, SecretSource], Field(max_length=MOST_SECRETS)]
