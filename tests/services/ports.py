"""Find ports that nobody listens on."""

import random
import socket

# Below those that clients' own ends of connections get.
STEADY_PORTS = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free right now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def steady_port() -> int:
    """Return a port of the loopback interface that is free right now, and that no client's end of a connection gets
    while a server that uses it is restarted.
    """
    while True:
        port = random.SystemRandom().choice(STEADY_PORTS)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
