"""A real RabbitMQ for tests: the one named by the environment, an installed one, one installed now, or a container."""

import atexit
import os
import shutil
import subprocess
from pathlib import Path

from tests.services import packages
from tests.services.rabbitmq_node import (
    ContainerNode,
    GivenNode,
    Node,
    PrivateNode,
    ServiceUnavailable,
)

URL_VARIABLE = "CHIFFON_TEST_AMQP_URL"
# The scripts themselves, not the wrappers in /usr/sbin: those switch the user and refuse everyone but root.
SCRIPT_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/usr/local/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
)
WHAT_TO_INSTALL = f"""\
These tests need RabbitMQ and found none. Do one of these:
  - install it:        apt-get install rabbitmq-server   (3.10 or newer; it need not be running)
  - start a container: docker must be installed and running; the image rabbitmq:3-management is used
  - use your own:      {URL_VARIABLE}=amqp://user:password@host:5672/vhost"""


def start_rabbitmq() -> Node:
    """Return a running broker; whoever calls this calls its `stop`.

    Raises `ServiceUnavailable`, which says what to install, when there is no way to get one.
    """
    url = os.environ.get(URL_VARIABLE)
    if url:
        return GivenNode(url)
    scripts = find_or_install()
    node: Node
    if scripts is not None:
        node = PrivateNode(scripts)
    elif _docker_runs():
        node = ContainerNode()
    else:
        raise ServiceUnavailable(WHAT_TO_INSTALL)
    atexit.register(node.stop)
    return node


def start_managed_rabbitmq() -> Node:
    """Return a running broker of our own with the management API; raises `ServiceUnavailable` like `start_rabbitmq`."""
    scripts = find_or_install()
    if scripts is not None:
        node: Node = PrivateNode(scripts, has_management=True)
    elif _docker_runs():
        node = ContainerNode()
    else:
        raise ServiceUnavailable(WHAT_TO_INSTALL)
    atexit.register(node.stop)
    return node


def find_scripts() -> Path | None:
    """Return the folder of an installed RabbitMQ's scripts, None when there is none."""
    for folder in map(Path, SCRIPT_FOLDERS):
        if (folder / "rabbitmq-server").exists():
            return folder
    on_path = shutil.which("rabbitmq-server")
    if on_path is None:
        return None
    folder = Path(on_path).resolve().parent
    return folder if (folder / "rabbitmq-env").exists() else None


def find_or_install() -> Path | None:
    """Return the folder of RabbitMQ's scripts, installed now where there is none; None where that cannot be done."""
    found = find_scripts()
    return found if found is not None or not packages.install(packages.RABBITMQ) else find_scripts()


def _docker_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0
