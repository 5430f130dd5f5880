"""Put bubblewrap in front of a program: everything can be read, nothing written but the workspace.

The program gets a process namespace of its own. Whoever is killed of the two processes that bubblewrap puts in front of
it, all that the program started dies with them, also what has left its group and cleaned its environment.
"""

from collections.abc import Sequence
from pathlib import Path

from agents.executors.enclosure import Enclosure


def sandboxed(argv: Sequence[str], workspace: Path, enclosure: Enclosure) -> list[str]:
    """Return the command that runs a program in the sandbox of its enclosure; as it is when none is demanded."""
    if not enclosure.is_sandboxed:
        return list(argv)
    assert enclosure.bubblewrap is not None
    empty = [option for path in ("/tmp", "/var/tmp", *map(str, enclosure.hidden)) for option in ("--tmpfs", path)]  # noqa: S108 - new ones
    return [
        enclosure.bubblewrap,
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        *(["--unshare-net"] if enclosure.confinement.network_off else []),
        *("--cap-drop", "ALL"),
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *empty,
        *("--bind", str(workspace), str(workspace)),
        *("--chdir", str(workspace)),
        "--",
        *argv,
    ]
