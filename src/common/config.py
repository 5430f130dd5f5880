"""Settings: the environment over a TOML file, checked once at start.

A file named by `CHIFFON_CONFIG`, or `chiffon.toml` in the working directory, holds the values that all processes share
at its top and those of one kind of process in a table of its own, for example `[agent]`. An environment variable wins.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from common.broker.base import QueueType
from common.broker.connect import check_broker_url
from common.errors import StartupRefused
from common.private import check_private
from common.toml_text import read_toml

CONFIG_VARIABLE = "CHIFFON_CONFIG"
DEFAULT_FILE = Path("chiffon.toml")
# Settings with such a word in their name may hold a secret, and are not shown when they are wrong.
HIDDEN = ("url", "token", "password", "secret")


class InvalidSettings(StartupRefused):
    """A setting has a value that is not allowed; the message names each one, its value and what is allowed."""


class _Environment(EnvSettingsSource):
    """The environment. A text that is no JSON where JSON is wanted is refused by its name like any wrong value."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            return value


class Settings(BaseSettings):
    """The base of each process's settings; `table` is its part of the TOML file, None for the top of it."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="CHIFFON_", env_ignore_empty=True)
    table: ClassVar[str | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), InitSettingsSource(settings_cls, _file_values(cls.table))

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; `overrides` (from a command line) win over everything. Raises `InvalidSettings`."""
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            raise InvalidSettings(_explain(cls, error)) from None


class SharedSettings(Settings):
    """What every process needs to know."""

    broker_url: Annotated[str, AfterValidator(check_broker_url)] = Field(
        default="amqp://guest:guest@127.0.0.1:5672/",
        description="The message bus: amqp://, amqps://, postgresql:// or memory:// (one process only). amqp://, "
        "amqps:// and postgresql:// take several hosts: `amqp://user:password@one:5672,two:5672/vhost`.",
    )
    queue_type: QueueType = Field(
        default=QueueType.CLASSIC,
        description="How RabbitMQ keeps queues: classic, on one node, or quorum, copied to the nodes of a cluster. The "
        "same for all processes.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least important lines that are logged."
    )
    log_format: Literal["json", "text"] = Field(default="json", description="How lines are logged.")


def split_list(value: Any) -> Any:
    """Return the items of a list that an environment variable holds, comma-separated or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def config_file() -> Path | None:
    """Return the file with the settings, None where there is none. Raises `InvalidSettings`."""
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named) if named else DEFAULT_FILE
    if path.exists():
        check_private(path, "The file of settings")
        return path
    if named:
        raise InvalidSettings(f"{CONFIG_VARIABLE} names a file that does not exist: {path}")
    return None


def _file_values(table: str | None) -> dict[str, Any]:
    path = config_file()
    if path is None:
        return {}
    try:
        values = read_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None
    if table is None:
        return {name: value for name, value in values.items() if not isinstance(value, dict)}
    own = values.get(table, {})
    if not isinstance(own, dict):
        raise InvalidSettings(f"{path}: {table} must be a table: [{table}]")
    return own


def _explain(settings: type[Settings], error: ValidationError) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        if problem["type"] == "default_factory_not_called":  # a default that depends on what is wrong
            continue
        # A setting that is read under several names is told by its own.
        name = ".".join(str(part) for part in problem["loc"]).removeprefix(prefix.lower())
        shown = "(hidden)" if any(word in name for word in HIDDEN) else repr(problem["input"])
        where = f"{prefix}{name}".upper() + (f" or [{settings.table}] {name}" if settings.table else f" or {name}")
        lines.append(f"{where} = {shown}: {problem['msg'].removeprefix('Value error, ')}")
    return "These settings are not usable:\n  " + "\n  ".join(lines)
