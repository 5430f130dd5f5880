"""The first administrator, written directly into the database: whoever can write there needs nobody's leave."""

import getpass
from pathlib import Path

from chiffon.credentials import TokenUnreadable, read_token, write_token
from common.errors import ChiffonError, StartupRefused
from orchestrator.database.pool import open_pool
from orchestrator.identities.rules import name_from
from orchestrator.identities.service import IdentityService


def user_name() -> str:
    """Return a name for whoever runs this program."""
    try:
        return name_from(getpass.getuser())
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return "admin"


async def bootstrap(database_url: str, name: str) -> str:
    """Make an administrator, if there is none of that name, and return a new token. Raises `StartupRefused`."""
    async with open_pool(database_url, connections=1) as pool:
        try:
            return (await IdentityService(pool).bootstrap(name)).secret
        except ChiffonError as error:
            raise StartupRefused(str(error)) from error


async def own_token(database_url: str, path: Path) -> str:
    """Return the token in a file, after making a new one where there is none or it does not count any more."""
    try:
        token = read_token(path)
    except TokenUnreadable:
        token = ""
    async with open_pool(database_url, connections=1) as pool:
        if token and await IdentityService(pool).is_good(token):
            return token
    token = await bootstrap(database_url, user_name())
    try:
        write_token(path, token)
    except OSError as error:
        raise TokenUnreadable(path, error.strerror or str(error)) from None
    return token
