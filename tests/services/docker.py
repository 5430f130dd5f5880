"""A docker daemon of our own for tests, from Debian's packages, which are installed where they are missing.

It has its own containerd, socket, data and parent of control groups, and touches neither the networks nor the packet
filter of the host: services of tests use the network of the host. No image is pulled: the base image is busybox.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.services import packages, run
from tests.services.rabbitmq_node import ServiceUnavailable

# Programs and the packages that bring them.
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "busybox": "busybox-static",
    "git": "git",
}
BASE_IMAGE = "chiffon-base:latest"
APPLETS = (
    "sh",
    "cat",
    "echo",
    "env",
    "false",
    "httpd",
    "kill",
    "ls",
    "mkdir",
    "sleep",
    "test",
    "touch",
    "trap",
    "true",
)
START_SECONDS = 60
STOP_SECONDS = 30
CALL_SECONDS = 120
LOOK_SECONDS = 0.05
CONTROL_GROUPS = Path("/sys/fs/cgroup")
WHAT_TO_INSTALL = (
    "These tests need Docker and docker-compose, as root, and found none: "
    f"apt-get install {' '.join(sorted(set(PACKAGES.values())))}"
)


class DockerDaemon:
    """A running daemon. Whoever starts it calls `stop`. `keeps_running`: containers outlive a daemon that is killed."""

    def __init__(self, *, keeps_running: bool = False) -> None:
        _install()
        self._options = ["--live-restore"] if keeps_running else []
        self._folder = Path(tempfile.mkdtemp(prefix="docker-"))
        self._group = f"chiffon-{uuid4().hex[:12]}"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        # For a run that is killed: programs in containers have neither the environment nor the folder of the run.
        run.undo("sh", "-c", _clean_up(self._group, self._folder))
        try:
            self._start_containerd()
            self.start()
            self._import_base()
        except BaseException as failure:
            output = self.log
            self.stop()
            if isinstance(failure, Exception):
                raise ServiceUnavailable(f"Docker did not start ({failure}). Its log:\n{output}") from failure
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What tells `docker` and `docker-compose` about this daemon."""
        return {"DOCKER_HOST": f"unix://{self._socket}", "DOCKER_CONFIG": str(self._folder / "config")}

    @property
    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def start(self) -> None:
        """Start the daemon, for the first time or after `kill`, and return when it answers."""
        words = {
            "--data-root": self._folder / "data",
            "--exec-root": self._folder / "exec",
            "--pidfile": self._folder / "pid",
            "--host": f"unix://{self._socket}",
            "--containerd": self._folder / "containerd.sock",
            "--cgroup-parent": f"/{self._group}",
        }
        quiet = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
        argv = [_program("dockerd"), *(f"{name}={value}" for name, value in words.items()), *quiet, *self._options]
        for left in (self._folder / "pid", self._socket):
            left.unlink(missing_ok=True)
        self._daemon = self._run(argv)
        self._await(self._daemon, lambda: self._socket.exists() and self._call("version").returncode == 0)

    def kill(self) -> None:
        """End the daemon as a crash does; without `keeps_running` the next start ends what runs in containers."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def docker(self, *words: str, data: bytes | None = None) -> str:
        """Run `docker` and return what it printed."""
        done = self._call(*words, data=data)
        if done.returncode != 0:
            raise RuntimeError(f"docker {shlex.join(words)} failed: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode().strip()

    def remove_all(self) -> None:
        """Remove every container, and every image but the base."""
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *containers)
        listed = self.docker("images", "--all", "--quiet", "--no-trunc").split()
        base = self.docker("image", "inspect", "--format", "{{.Id}}", BASE_IMAGE)
        if others := sorted(set(listed) - {base}):
            self._call("image", "rm", "--force", *others)

    def stop(self) -> None:
        """Stop the daemon with all containers, and remove what it wrote; again is no error."""
        if self._daemon is not None and self._daemon.poll() is None:
            containers = self._call("ps", "--all", "--quiet").stdout.decode().split()
            self._call("rm", "--force", *containers)
        for process in (self._daemon, self._containerd):
            if process is not None:
                _end(process)
        self._daemon = self._containerd = None
        subprocess.run(["sh", "-c", _clean_up(self._group, self._folder)], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._folder / "docker.sock"

    def _start_containerd(self) -> None:
        socket, configuration = self._folder / "containerd.sock", self._folder / "containerd.toml"
        configuration.write_text(
            f'version = 2\nroot = "{self._folder}/containerd"\nstate = "{self._folder}/containerd-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
        )
        self._containerd = self._run([_program("containerd"), "--config", str(configuration)])
        self._await(self._containerd, socket.exists)

    def _run(self, argv: list[str]) -> "subprocess.Popen[bytes]":
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                argv, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _await(self, process: "subprocess.Popen[bytes]", is_there: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_there():
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not answer")
            time.sleep(LOOK_SECONDS)

    def _call(self, *words: str, data: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [_program("docker"), *words],
            env={**os.environ, **self.environment},
            input=data,
            capture_output=True,
            timeout=CALL_SECONDS,
            check=False,
        )

    def _import_base(self) -> None:
        """Make the base image of one static program and its names."""
        busybox = Path(_program("busybox")).read_bytes()
        if b"/ld-linux" in busybox[:8192]:
            raise ServiceUnavailable("The busybox of this host is not static: apt-get install busybox-static")
        layer = BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for folder in ("bin", "tmp", "etc"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            program = tarfile.TarInfo("bin/busybox")
            program.mode, program.size = 0o755, len(busybox)
            tar.addfile(program, BytesIO(busybox))
            for name in APPLETS:
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        self.docker("import", "--change", "ENV PATH=/bin", "-", BASE_IMAGE, data=layer.getvalue())


def _install() -> None:
    missing = sorted({package for name, package in PACKAGES.items() if packages.program(name) is None})
    if missing:
        packages.install(*missing)
    if os.geteuid() != 0 or any(packages.program(name) is None for name in PACKAGES):
        raise ServiceUnavailable(WHAT_TO_INSTALL)


def _program(name: str) -> str:
    found = packages.program(name)
    if found is None:
        raise ServiceUnavailable(WHAT_TO_INSTALL)
    return found


def _clean_up(group: str, folder: Path) -> str:
    """Return a script that ends what is left in containers, and takes away groups and mounts."""
    groups = f"{CONTROL_GROUPS}/*/{group} {CONTROL_GROUPS}/{group}"
    return (
        f"for procs in $(find {groups} -name cgroup.procs 2>/dev/null); do kill -9 $(cat $procs) 2>/dev/null; done\n"
        f"awk '$2 ~ \"^{folder}\" {{print $2}}' /proc/mounts | sort -r | xargs -r umount -l\n"
        f"sleep 0.2; for made in $(find {groups} -depth -type d 2>/dev/null); do rmdir $made 2>/dev/null; done\n"
        f"rm -rf --one-file-system {folder}\n"
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return
