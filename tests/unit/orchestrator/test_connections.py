"""Which connection goes when one too many comes: an anonymous one, the oldest, never one of a known caller."""

from http import HTTPStatus
from ipaddress import ip_network
from unittest.mock import Mock

import pytest

from orchestrator.http import connections as module
from orchestrator.http.addresses import counted_as
from orchestrator.http.connections import Connection, Connections


class Peer:
    """One that holds a connection; `told` is the status with which it was turned away."""

    def __init__(self) -> None:
        self.transport = Mock(get_write_buffer_size=Mock(return_value=0), is_closing=Mock(return_value=False))
        self.told: HTTPStatus | None = None
        self.looks = 0

    def check(self, now: float, *, is_stuck: bool) -> None:
        self.looks += 1
        if is_stuck:
            self.transport.abort()

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        self.told = status


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANONYMOUS", 6)
    monkeypatch.setattr(module, "MOST_OF_ADDRESS", 3)


def enter(connections: Connections, address: str, now: float) -> tuple[Peer, Connection]:
    peer = Peer()
    connection = connections.enter(peer, address, now=now)
    assert connection is not None
    return peer, connection


def test_an_address_with_too_many_anonymous_connections_loses_its_oldest_and_no_other_address_does() -> None:
    connections = Connections(most=100)
    other, _ = enter(connections, "192.0.2.9", 0)
    peers = [enter(connections, "192.0.2.1", second)[0] for second in range(1, 6)]

    assert [peer.told for peer in peers] == [429, 429, None, None, None]
    assert other.told is None


def test_connections_that_come_together_have_time_to_send_their_request() -> None:
    connections = Connections(most=100)

    peers = [enter(connections, "192.0.2.1", 0)[0] for _ in range(5)]

    assert {peer.told for peer in peers} == {None}


def test_anonymous_connections_of_all_addresses_lose_the_oldest_first() -> None:
    connections = Connections(most=100)

    peers = [enter(connections, f"192.0.2.{number}", number)[0] for number in range(8)]

    assert [peer.told for peer in peers] == [503, 503, *[None] * 6]
    assert connections.anonymous == 6


def test_a_known_caller_never_makes_room_and_a_newcomer_is_refused_when_all_are_known() -> None:
    connections, known = Connections(most=20), []
    for number in range(18):
        peer, connection = enter(connections, "192.0.2.1", number)
        connection.recognise()
        known.append(peer)
    anonymous = [enter(connections, f"192.0.2.{number}", 100 + number)[0] for number in range(2, 5)]

    assert [peer.told for peer in anonymous] == [HTTPStatus.SERVICE_UNAVAILABLE, None, None]
    assert {peer.told for peer in known} == {None}
    full = Connections(most=2)
    for _ in range(2):
        enter(full, "192.0.2.1", 0)[1].recognise()
    assert full.enter(Peer(), "192.0.2.2", now=1) is None


def test_a_proxy_has_no_limit_of_its_own_as_an_address() -> None:
    connections = Connections(most=100, proxies=[ip_network("192.0.2.0/28")])

    peers = [enter(connections, "192.0.2.1", second * 10)[0] for second in range(5)]

    assert {peer.told for peer in peers} == {None}


def test_anonymous_connections_take_at_most_half_of_all() -> None:
    connections = Connections(most=8)

    peers = [enter(connections, f"192.0.2.{number}", number)[0] for number in range(6)]

    assert [peer.told for peer in peers] == [503, 503, *[None] * 4]
    assert connections.anonymous == 4


def test_a_connection_that_left_is_counted_no_more() -> None:
    connections = Connections(most=100)
    for second in range(50):
        _, connection = enter(connections, "192.0.2.1", second * 10)
        connections.leave(connection)

    assert (len(connections), connections.anonymous) == (0, 0)


def test_a_reader_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() -> None:
    connections = Connections(most=100)
    (stuck, _), (slow, _) = enter(connections, "192.0.2.1", 0), enter(connections, "192.0.2.2", 0)
    for second in range(60):
        stuck.transport.get_write_buffer_size.return_value = 10_000
        slow.transport.get_write_buffer_size.return_value = 10_000 - 100 * (second // 15)
        connections.check(second)

    stuck.transport.abort.assert_called()
    slow.transport.abort.assert_not_called()


def test_a_connection_that_was_closed_and_takes_nothing_is_cut_off() -> None:
    connections = Connections(most=100)
    peer, _ = enter(connections, "192.0.2.1", 0)
    peer.transport.get_write_buffer_size.return_value = 10_000
    peer.transport.is_closing.return_value = True
    for second in range(int(module.WRITE_SECONDS)):
        connections.check(second)
    peer.transport.abort.assert_not_called()

    connections.check(module.WRITE_SECONDS + 1)

    peer.transport.abort.assert_called()


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("", ""),
    ],
)
def test_the_addresses_of_one_subscriber_count_as_one(address: str, counted: str) -> None:
    assert counted_as(address) == counted


def test_each_connection_is_looked_at_once_in_a_round_of_parts() -> None:
    connections = Connections(most=100)
    peers = [enter(connections, f"192.0.2.{number}", 0)[0] for number in range(6)]

    for tick in range(3):
        connections.check(tick, parts=4)

    assert [peer.looks for peer in peers] == [1] * 6
