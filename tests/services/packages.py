"""Debian packages of the servers and programs that tests use.

    python -m tests.services.packages     install those that are missing

It needs nothing but Python, so that it can run before the environment of the tests is made.
"""

import os
import shutil
import subprocess

INSTALL_SECONDS = 600
# Its package and its program; rabbitmq.py looks for it also where it is no program on PATH.
RABBITMQ = "rabbitmq-server"
# Programs and the packages that bring them.
PACKAGES = {
    "pgbouncer": "pgbouncer",
    "bwrap": "bubblewrap",
    "ip": "iproute2",
    "nft": "nftables",
    "perl": "perl-base",
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "busybox": "busybox-static",
}


def program(name: str) -> str | None:
    """Return the path of an installed program, also of one that only root has on PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def install(*packages: str) -> bool:
    """Install packages; return whether that was done, which takes root and apt-get."""
    if not packages or shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Two workers may install at the same time.
    install = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *packages)
    for command in (("apt-get", "update"), install):
        done = subprocess.run(command, env=quiet, capture_output=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode != 0:
            return False
    return True


def install_missing(*more: str) -> None:
    """Install the packages of the programs that are not there, and more, in one go."""
    install(*more, *(package for name, package in PACKAGES.items() if program(name) is None))


if __name__ == "__main__":
    install_missing(*(() if program(RABBITMQ) else (RABBITMQ,)))
