"""A server on this host is reached without the proxy that the environment names."""

import pytest

from common.http_client import client_options


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "127.255.255.254", "[::1]"])
def test_no_proxy_is_asked_for_any_address_of_this_host(host: str) -> None:
    assert client_options(f"http://{host}:8420")["trust_env"] is False


@pytest.mark.parametrize(
    "host", ["chiffon.example", "localhost.example", "10.0.0.7", "[2001:db8::1]", "127.0.0.1.nip.io"]
)
def test_another_host_may_be_behind_a_proxy(host: str) -> None:
    assert client_options(f"http://{host}:8420")["trust_env"] is True
