"""Find ports that nobody listens on."""

import socket


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
