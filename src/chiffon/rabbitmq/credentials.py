"""Passwords that are made here, the URLs that hold them, and files that only this user can read."""

import secrets
from pathlib import Path
from urllib.parse import quote

from common.durable import write_file
from common.errors import StartupRefused


class CannotKeep(StartupRefused):
    """A credential was made and could not be written down."""


def new_password() -> str:
    """Return 256 random bits, in letters that need no quoting anywhere."""
    return secrets.token_urlsafe(32)


def broker_url(amqp_url: str, *, user: str, password: str, vhost: str) -> str:
    """Return the URL with which a user reaches its virtual host."""
    scheme, _, address = amqp_url.rstrip("/").partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{address}/{quote(vhost, safe='')}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read; one that exists is replaced whole. Raises `CannotKeep`."""
    try:
        write_file(path, text.encode())
    except OSError as error:
        raise CannotKeep(f"{path} cannot be written: {error.strerror}. The password is lost: make a new one.") from None
