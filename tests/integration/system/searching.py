"""Search everything that Chiffon has written anywhere for texts that must not be there."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aio_pika
import asyncpg
from aio_pika.abc import AbstractQueue

from common.broker.topology import WORK, work_address
from tests.encodings import ALPHABETS, base64_of, ways

# A line of a secret tells enough of it to be searched by itself.
TELLING = 16

TABLES = """
    SELECT quote_ident(table_schema) || '.' || quote_ident(table_name)
      FROM information_schema.tables
     WHERE table_schema NOT IN ('information_schema', 'pg_catalog') AND table_type = 'BASE TABLE'
"""


def needles(secrets: Mapping[str, str]) -> dict[bytes, str]:
    """Return every way to write the secrets, also as PostgreSQL shows bytes, each with the name of its secret."""
    plain = {
        written: name
        for name, secret in secrets.items()
        for text in {secret, *(line for line in secret.splitlines() if len(line) >= TELLING)}
        for written in _written(text)
    }
    return {**plain, **{written.hex().encode(): name for written, name in plain.items()}}


def _written(text: str) -> Iterator[bytes]:
    yield from (written.encode() for written in ways(text).values())
    for alphabet in ALPHABETS.values():
        yield from base64_of(text.encode(), alphabet)


def found(places: Mapping[str, bytes], sought: Mapping[bytes, str]) -> list[str]:
    """Return where something of what is sought stands."""
    return sorted(
        {f"{name} in {place}" for place, text in places.items() for form, name in sought.items() if form in text}
    )


async def every_row(database_url: str) -> dict[str, bytes]:
    """Return the text of every row of every table there is."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = [row[0] for row in await connection.fetch(TABLES)]
        rows = {table: await connection.fetch(f"SELECT whole::text FROM {table} AS whole") for table in tables}
    finally:
        await connection.close()
    return {f"table {table}": "\n".join(row[0] for row in found).encode() for table, found in rows.items()}


def every_file(*folders: Path) -> dict[str, bytes]:
    """Return the content of every file below the folders."""
    return dict(_files(folders))


def _files(folders: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in folder.rglob("*") if folder.is_dir() else [folder]:
            if path.is_file():
                yield str(path), path.read_bytes()


class Tap:
    """Takes a copy of every message that goes through the exchanges."""

    def __init__(self, queue: AbstractQueue) -> None:
        self._queue = queue

    async def listen_to_work_of(self, agent_id: UUID) -> None:
        """Take copies of the work that an agent gets, too."""
        await self._queue.bind(WORK.name, work_address("infra", agent_id).routing_key)

    async def every_message(self) -> dict[str, bytes]:
        seen = b""
        while (message := await self._queue.get(fail=False, no_ack=True)) is not None:
            seen += message.body + repr(message.headers).encode() + b"\n"
        return {"RabbitMQ": seen}


@asynccontextmanager
async def tapped(amqp_url: str) -> AsyncIterator[Tap]:
    """Listen in on RabbitMQ as its administrator could."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        # No agent has begun yet, who would make it.
        await channel.declare_exchange("chiffon.control", "topic", durable=True)
        for exchange, key in (
            ("chiffon.replies", "#"),
            ("chiffon.control", "#"),
            ("chiffon.dead", ""),
        ):
            await queue.bind(exchange, key)
        yield Tap(queue)
