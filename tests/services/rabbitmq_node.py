"""The kinds of RabbitMQ that tests can run against."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

from tests.services import run
from tests.services.ports import free_ports

START_SECONDS = 60
STOP_SECONDS = 20
# Each call of a node starts a program, so virtual hosts are made ahead.
VHOSTS_AT_ONCE = 20
MAKE_VHOSTS = """
lists:foreach(
  fun(N) ->
    Name = <<"{prefix}-", (integer_to_binary(N))/binary>>,
    rabbit_vhost:add(Name, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
  end, lists:seq(1, {count})).
"""


class ServiceUnavailable(Exception):
    """A service that tests need cannot be had here; the message says what to do."""


class Node(ABC):
    """A running RabbitMQ. `can_control` says whether `ctl` works."""

    url: str
    management_url: str | None = None
    can_control = True

    def __init__(self) -> None:
        self._vhosts: list[str] = []

    @abstractmethod
    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it printed."""

    def evaluate(self, expressions: str) -> str:
        """Have the node evaluate Erlang and return the value of the last expression."""
        return self.ctl("eval", expressions).strip()

    @abstractmethod
    def says(self) -> dict[str, Any]:
        """Return as JSON what another process needs to use this node."""

    @abstractmethod
    def stop(self) -> None:
        """Stop what was started; again is no error."""

    def new_vhost_url(self) -> str:
        """Return a URL of a virtual host that nobody has used yet."""
        if not self._vhosts:
            prefix = f"test-{uuid4().hex[:8]}"
            self.evaluate(MAKE_VHOSTS.format(prefix=prefix, count=VHOSTS_AT_ONCE))
            self._vhosts = [f"{prefix}-{number}" for number in range(VHOSTS_AT_ONCE, 0, -1)]
        return urlunsplit(urlsplit(self.url)._replace(path="/" + quote(self._vhosts.pop(), safe="")))


class GivenNode(Node):
    """A broker that somebody else runs: it is used, never controlled."""

    can_control = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def ctl(self, *arguments: str) -> str:
        raise ServiceUnavailable("a broker given by its URL cannot be controlled with rabbitmqctl")

    def says(self) -> dict[str, Any]:
        return {"url": self.url}

    def stop(self) -> None:
        pass

    def new_vhost_url(self) -> str:
        return self.url


class InstalledNode(Node):
    """A running node of installed scripts, which all processes of the test run can control."""

    def __init__(self, scripts: Path, environment: dict[str, str], url: str, management_url: str | None) -> None:
        super().__init__()
        self._scripts = scripts
        self._environment = environment
        self.url = url
        self.management_url = management_url

    def stop(self) -> None:
        pass

    def says(self) -> dict[str, Any]:
        """Return as JSON what another process needs for a node of its own class `InstalledNode`."""
        return {
            "scripts": str(self._scripts),
            "environment": self._environment,
            "url": self.url,
            "management_url": self.management_url,
        }

    def ctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {done.stderr or done.stdout}")
        return done.stdout

    def evaluate(self, expressions: str) -> str:
        call = shutil.which("erl_call")
        if call is None:
            return super().evaluate(expressions)
        # rabbitmqctl starts an Erlang of its own for each call, which costs half a second of processor time. The node
        # refuses a second caller of the same name, and all callers have one unless they are given another.
        node, caller = self._environment["RABBITMQ_NODENAME"], f"caller-{uuid4().hex}"
        done = subprocess.run(
            [call, "-sname", node, "-h", caller, "-timeout", str(START_SECONDS), "-e"],
            env=self._environment,
            input=f"{expressions.strip()}\n",
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        status, _, value = done.stdout.strip().removeprefix("{").removesuffix("}").partition(", ")
        if done.returncode != 0 or status != "ok":
            raise RuntimeError(f"erl_call {expressions} failed: {done.stderr or done.stdout}")
        return value

    def command_environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of a shell whose `rabbitmqctl` and `rabbitmqadmin` mean this node."""
        assert self.management_url is not None
        folder.mkdir()
        with urllib.request.urlopen(f"{self.management_url}/cli/rabbitmqadmin") as answer:
            (folder / "admin.py").write_bytes(answer.read())
        port = urlsplit(self.management_url).port
        admin = f'exec {sys.executable} {folder}/admin.py --host=127.0.0.1 --port={port} "$@"'
        # rabbitmqctl asks for passwords on standard input, and takes all there is of it whatever it is told to do.
        control = (
            f'[ "$1" = add_user ] && typed="echo secret" || typed=true\n$typed | {self._scripts}/rabbitmqctl -q "$@"'
        )
        for name, command in (("rabbitmqctl", control), ("rabbitmqadmin", admin)):
            (folder / name).write_text(f"#!/bin/sh\n{command}\n")
            (folder / name).chmod(0o755)
        return {**self._environment, "PATH": f"{folder}:{self._environment['PATH']}"}


class Member(NamedTuple):
    """The configuration of one node of a cluster."""

    port: int
    epmd: int
    cookie: str


def node_name(port: int) -> str:
    return f"chiffon-{port}@localhost"


def epmd_command(port: int) -> list[str]:
    return ["epmd", "-port", str(port), "-address", "127.0.0.1"]


class PrivateNode(InstalledNode):
    """A node of our own, from installed scripts, on free ports and with everything it writes in one folder.

    `configuration` is added to its rabbitmq.conf. Plugins, and the management API, are there only where asked for. The
    nodes of a cluster are given their port, which is part of their name, and the epmd and the cookie that they share.
    """

    def __init__(
        self,
        scripts: Path,
        *,
        has_management: bool = False,
        plugins: tuple[str, ...] = (),
        configuration: str = "",
        member: "Member | None" = None,
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="chiffon-rabbitmq-"))
        port, distribution, epmd, management = free_ports(4)
        if member is not None:
            port, epmd = member.port, member.epmd
            (self._home / ".erlang.cookie").write_text(member.cookie)
            (self._home / ".erlang.cookie").chmod(0o400)
        if has_management:
            # No test reads its metrics, which cost processor time all the while.
            configuration += f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
            configuration += "collect_statistics_interval = 60000\n"
            plugins = (*plugins, "rabbitmq_management")
        (self._home / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (self._home / "rabbitmq.conf").write_text(f"heartbeat = 15\n{configuration}")
        (self._home / "environment.conf").write_text("")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": str(self._home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": node_name(port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._home / "environment.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        super().__init__(
            scripts,
            environment,
            f"amqp://guest:guest@127.0.0.1:{port}/",
            f"http://127.0.0.1:{management}" if has_management else None,
        )
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            if member is None:
                # Started here, not by the node, so that it can be stopped with it.
                self._run(epmd_command(epmd))
                _wait_for_port(epmd, self._processes[-1])
            self.start()
        except BaseException as failure:
            output = self._output()
            self.stop()
            if isinstance(failure, Exception):
                raise ServiceUnavailable(f"RabbitMQ did not start ({failure}). Its output:\n{output}") from failure
            raise

    def start(self) -> None:
        """Start the node, for the first time or after `kill`, and return when it is ready."""
        self._run([str(self._scripts / "rabbitmq-server")])
        _wait_for_port(urlsplit(self.url).port or 0, self._processes[-1])
        self.evaluate("rabbit:await_startup().")

    def kill(self) -> None:
        """End the node as a power cut does."""
        process = self._processes.pop()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        while self._processes:
            _stop(self._processes.pop())
        shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, command: list[str]) -> None:
        with (self._home / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)

    def _output(self) -> str:
        path = self._home / "output"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""


class ContainerNode(Node):
    """A node in a container."""

    IMAGE = "rabbitmq:3-management"

    def __init__(self, name: str | None = None) -> None:
        """Start a container, or use the one of this name."""
        super().__init__()
        self._name = name or f"chiffon-rabbitmq-{uuid4().hex[:12]}"
        if name is None:
            run.undo("docker", "rm", "--force", self._name)
            published = ("--publish", "127.0.0.1::5672", "--publish", "127.0.0.1::15672")
            _docker("run", "--rm", "--detach", "--name", self._name, *published, self.IMAGE)
        try:
            self.url = f"amqp://guest:guest@127.0.0.1:{self._port(5672)}/"
            self.management_url = f"http://127.0.0.1:{self._port(15672)}"
            _await_container(self)
        except BaseException:
            self.stop()
            raise

    def says(self) -> dict[str, Any]:
        """Return as JSON what another process needs to use this container."""
        return {"container": self._name}

    def _port(self, inside: int) -> str:
        return _docker("port", self._name, f"{inside}/tcp").split()[0].rsplit(":", 1)[1]

    def ctl(self, *arguments: str) -> str:
        return _docker("exec", self._name, "rabbitmqctl", "--quiet", *arguments)

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", self._name], capture_output=True, check=False)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceUnavailable(f"docker {' '.join(arguments)} failed: {done.stderr}")
    return done.stdout


def _await_container(node: ContainerNode) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            node.ctl("await_startup")
        except ServiceUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with code {process.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The whole group: the shell script replaces itself with the node, but helpers of the node stay beside it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()
