"""A network of its own for one agent, whose packets the kernel drops on demand: `ip netns`, a veth pair, nftables."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.services import packages, run

PROGRAMS = ("ip", "nft")


class NoNetwork(Exception):
    """There is no way to make a network here; the message says why."""


class Network:
    """`outside` is this machine's address as the inside sees it; `command` runs a program inside."""

    def __init__(self, name: str, outside: str, inside: str) -> None:
        self.name = name
        self.outside = outside
        self.inside = inside

    def command(self, *words: str) -> list[str]:
        return [_path("ip"), "netns", "exec", self.name, *words]

    async def drop(self, *, incoming: bool, outgoing: bool) -> None:
        """Lose every packet that comes in, goes out, or both."""
        rules = ["add table inet chaos"]
        for hook, wanted in (("input", incoming), ("output", outgoing)):
            if wanted:
                rules += [
                    f"add chain inet chaos {hook} {{ type filter hook {hook} priority 0; }}",
                    f'add rule inet chaos {hook} iif != "lo" drop'
                    if hook == "input"
                    else f'add rule inet chaos {hook} oif != "lo" drop',
                ]
        await _run(*self.command(_path("nft"), "; ".join(rules)))

    async def heal(self) -> None:
        await _run(*self.command(_path("nft"), "flush ruleset"))


@asynccontextmanager
async def open_network() -> AsyncIterator[Network]:
    """Make a network and remove it at the end; raises `NoNetwork`."""
    await _check()
    number = os.getpid() % 16_000
    name, outer, inner = f"chaos{number}", f"ch{number}o", f"ch{number}i"
    outside, inside = (f"10.231.{number // 64}.{number % 64 * 4 + last}" for last in (1, 2))
    # Without its namespace the pair of links goes, too.
    run.undo(_path("ip"), "netns", "delete", name)
    steps = (
        f"netns add {name}",
        f"link add {outer} type veth peer name {inner} netns {name}",
        f"address add {outside}/30 dev {outer}",
        f"link set {outer} up",
        f"-netns {name} address add {inside}/30 dev {inner}",
        f"-netns {name} link set {inner} up",
        f"-netns {name} link set lo up",
    )
    try:
        try:
            for step in steps:
                await _run(_path("ip"), *step.split())
        except RuntimeError as failure:
            raise NoNetwork(str(failure)) from None
        yield Network(name, outside, inside)
    finally:
        for step in (f"link delete {outer}", f"netns delete {name}"):
            with suppress(RuntimeError):
                await _run(_path("ip"), *step.split())


async def _check() -> None:
    if os.geteuid() != 0:
        raise NoNetwork("only root can make network namespaces")
    if any(packages.program(name) is None for name in PROGRAMS):
        await asyncio.to_thread(packages.install_missing)
    missing = [name for name in PROGRAMS if packages.program(name) is None]
    if missing:
        raise NoNetwork(f"not installed: {', '.join(missing)}")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {output.decode(errors='replace').strip()}")


def _path(program: str) -> str:
    return packages.program(program) or program
