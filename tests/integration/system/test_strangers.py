"""Strangers who open connections and ask nothing leave files for callers, the database and the broker."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from chiffon.client import Client
from tests.integration.system.processes import server

SOFT, HARD = 200, 400
STRANGERS = 600


@pytest.mark.own_ledger
async def test_connections_that_ask_nothing_shut_nobody_out_whatever_the_limit_of_files(
    ledger_url: str, tmp_path: Path
) -> None:
    async with server(ledger_url, ledger_url, tmp_path, open_files=(SOFT, HARD)) as running:
        process = psutil.Process(running.process.pid)
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (HARD, HARD)
        where = urlsplit(running.client.base_url)
        with ExitStack() as stack:
            for _ in range(STRANGERS):
                stranger = stack.enter_context(socket.create_connection((where.hostname or "", where.port or 0), 30))
                with suppress(ConnectionError):
                    stranger.sendall(b"GET /hea")
            async with Client(running.client.base_url) as newcomer:
                assert await newcomer.ready()
            assert await running.client.ready()
            assert process.num_fds() < HARD // 2 + 100
