"""Where RabbitMQ's administration is and as whom it is asked: `CHIFFON_RABBITMQ_…` or `[rabbitmq]` of the TOML file."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.config import InvalidSettings, Settings


class RabbitmqSettings(Settings):
    """What `chiffon rabbitmq` needs to know. A password is never an argument: those are for all to see."""

    model_config = SettingsConfigDict(env_prefix="CHIFFON_RABBITMQ_")
    table: ClassVar[str | None] = "rabbitmq"

    management_url: str = Field(
        default="http://127.0.0.1:15672",
        pattern=r"^https?://[^/?#@]+/?$",
        description="The address of RabbitMQ's management API.",
    )
    admin_user: str = Field(default="guest", min_length=1, description="An administrator of RabbitMQ.")
    admin_password: SecretStr | None = Field(
        default=None, description="That administrator's password; or name a file that holds it."
    )
    admin_password_file: Path | None = Field(
        default=None, description="A file that holds nothing but the administrator's password."
    )
    vhost: str = Field(
        default="chiffon", min_length=1, max_length=255, description="The virtual host that is Chiffon's."
    )
    user: str = Field(
        default="chiffon",
        pattern=r"^[A-Za-z0-9_-]{1,128}$",
        description="The user of the orchestrators, which all of them share.",
    )
    amqp_url: str = Field(
        default="amqp://127.0.0.1:5672",
        pattern=r"^amqps?://[^/?#@]+/?$",
        description="The address of RabbitMQ as orchestrators and agents reach it, without a user: it becomes part of "
        "the URLs that are made.",
    )

    def read_admin_password(self) -> str:
        """Return the administrator's password. Raises `InvalidSettings` when there is none, or no such file."""
        if self.admin_password is not None:
            return self.admin_password.get_secret_value()
        if self.admin_password_file is None:
            raise InvalidSettings(
                "The password of RabbitMQ's administrator is not set: give CHIFFON_RABBITMQ_ADMIN_PASSWORD, or a file "
                "with CHIFFON_RABBITMQ_ADMIN_PASSWORD_FILE."
            )
        try:
            return self.admin_password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidSettings(
                f"CHIFFON_RABBITMQ_ADMIN_PASSWORD_FILE = {self.admin_password_file}: {error.strerror}."
            ) from None
