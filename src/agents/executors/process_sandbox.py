"""Put bubblewrap in front of a program: it sees what is named here and by the host's settings, and nothing else.

The program gets a process namespace of its own. Whoever is killed of the two processes that bubblewrap puts in front of
it, all that the program started dies with them, also what has left its group and cleaned its environment.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.executors.enclosure import Enclosure, Sandbox

# Programs and libraries. On most hosts all but the first are links into it.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Programs need these to be loaded, to know users and time, and to check certificates; none of it is secret.
CONFIGURATION = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
NETWORK_CONFIGURATION = ("gai.conf", "host.conf", "hostname", "hosts", "resolv.conf")
# Root may write here without any capability, and so change the host, for example which program gets core files.
KERNEL = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - new ones


def sandboxed(argv: Sequence[str], workspace: Path, enclosure: Enclosure, *, cwd: Path | None = None) -> list[str]:
    """Return the command that runs a program in the sandbox of its enclosure; as it is when none is demanded.

    `cwd`: where it begins, of what it sees; the workspace, when None.
    """
    if not enclosure.is_sandboxed:
        return list(argv)
    sandbox = enclosure.sandbox
    assert sandbox is not None
    has_network = not enclosure.confinement.network_off
    etc = (*CONFIGURATION, *(NETWORK_CONFIGURATION if has_network else ()))
    hidden = list(_hidden(sandbox))
    return [
        sandbox.bubblewrap,
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        *([] if has_network else ["--unshare-net"]),
        *("--cap-drop", "ALL"),
        *(word for path in SYSTEM for word in _system(path)),
        *("--dir", "/etc"),
        *(word for name in etc for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *(word for name in KERNEL for word in ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")),
        *(word for path in TEMPORARY for word in ("--tmpfs", path)),
        *(word for path, how in _named(sandbox) for word in (how, path, path)),
        *(word for path, is_folder in hidden for word in _empty(path, is_folder=is_folder)),
        *("--bind", str(workspace), str(workspace)),
        *(word for path, is_folder in hidden if is_folder for word in ("--remount-ro", path)),
        *("--remount-ro", "/"),
        *("--chdir", str(cwd or workspace)),
        "--",
        *argv,
    ]


def _system(path: str) -> list[str]:
    link = Path(path)
    return ["--symlink", str(link.readlink()), path] if link.is_symlink() else ["--ro-bind-try", path, path]


def _named(sandbox: Sandbox) -> list[tuple[str, str]]:
    """Return the paths that the host names and how they are bound, a directory before what is in it."""
    how = dict.fromkeys(sandbox.readable, "--ro-bind")
    # A device works only where that is asked for.
    how |= {path: "--dev-bind" if path.is_relative_to("/dev") else "--bind" for path in sandbox.writable}
    return [(str(path), how[path]) for path in sorted(how, key=lambda path: path.parts)]


def _hidden(sandbox: Sandbox) -> Iterator[tuple[str, bool]]:
    """Return where something hidden would be seen all the same, and whether it is a directory."""
    shown = {path: path.resolve() for path in (*map(Path, SYSTEM[:1]), *sandbox.readable, *sandbox.writable)}
    for hidden in sandbox.hidden:
        place = hidden.resolve()
        if place.exists():
            for path, real in shown.items():
                if place.is_relative_to(real):
                    yield str(path / place.relative_to(real)), place.is_dir()


def _empty(path: str, *, is_folder: bool) -> list[str]:
    return ["--tmpfs", path] if is_folder else ["--ro-bind", "/dev/null", path]
