"""A small project of Docker Compose for the demonstration of repairs: a service that fails, and one beside it.

Its base image is made here, of busybox, so that nothing is fetched.
"""

import asyncio
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common.errors import StartupRefused

# Names that no other project of the machine has: a repair keeps images by the name of their service.
SERVICE, BYSTANDER = "chiffon-demo-web", "chiffon-demo-clock"
SCRIPT = "web/start.sh"
ALLOWED = "web/**"
LIMIT = timedelta(minutes=5)
# Debian has one that needs no libraries in the package busybox-static.
BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox")
# The kind of a segment in an ELF file that names the loader of shared libraries.
LOADER_SEGMENT = 3

RIGHT_ROOT, WRONG_ROOT = "/site", "/srv/site"
# The network of the host is there whatever Docker may do with that of containers.
COMPOSE_FILE = """\
services:
  {service}:
    build: ./web
    image: {project}-web
    network_mode: host
    stop_grace_period: 1s
  {bystander}:
    image: {base}
    command: ["/bin/busybox", "sleep", "86400"]
    network_mode: host
    stop_grace_period: 1s
"""
BASE_IMAGE = "FROM scratch\nCOPY busybox /bin/busybox\n"
WEB_IMAGE = """\
FROM {base}
COPY site {root}
COPY start.sh /start.sh
CMD ["/bin/busybox", "sh", "/start.sh"]
"""
START = "# Serve the site.\nexec /bin/busybox httpd -f -p 127.0.0.1:{port} -h {root}\n"
PAGE = "<!doctype html><title>demo</title><p>It works.\n"


class Missing(StartupRefused):
    """This machine cannot show it; the message has a line for each thing that it lacks."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__("\n".join(["The demonstration needs Docker Compose, and this machine lacks:", *missing]))


class CommandFailed(StartupRefused):
    """A command that prepares the demonstration failed."""

    def __init__(self, command: Sequence[str], output: str) -> None:
        super().__init__("\n".join([f"{' '.join(command)} failed:", *output.splitlines()[-20:]]))


@dataclass(frozen=True, slots=True)
class Tools:
    """What this machine has: the first words of compose, and a busybox that needs no libraries."""

    compose: Sequence[str]
    busybox: Path


@dataclass(frozen=True, slots=True)
class Project:
    """The project in its directory, a git repository."""

    name: str
    folder: Path
    port: int
    other_port: int
    tools: Tools

    @property
    def base_image(self) -> str:
        return f"{self.name}-base"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def script(self) -> str:
        """What the service starts with, as its file says now."""
        return (self.folder / SCRIPT).read_text(encoding="utf-8")

    def services_file(self) -> str:
        """Return the file of services that describes it, in TOML."""
        return (
            f"[service.{SERVICE}]\n"
            f'project = "{self.name}"\n'
            f'workspace = "{self.folder}"\n'
            'compose_files = ["docker-compose.yml"]\n'
            f'allowlist = ["{ALLOWED}"]\n'
            'agent_type = "infra"\n'
            "restart_timeout_seconds = 60\n"
            f'healthcheck = {{ url = "{self.url}", timeout_seconds = 8, interval_seconds = 1 }}\n'
        )

    async def make(self) -> None:
        """Write the project, commit it, build its images and start it; the service fails. Raises `CommandFailed`."""
        await asyncio.to_thread(self._write)
        await _run(["docker", "build", "--tag", self.base_image, "."], self._base)
        await _run(["git", "init", "--quiet"], self.folder)
        await self.commit("A site, and a clock beside it")
        await self.compose("build", SERVICE)
        await self.compose("up", "--detach")

    async def commit(self, message: str) -> None:
        """Commit what is in the directory."""
        who = ("-c", "user.name=Chiffon", "-c", "user.email=chiffon@localhost")
        await _run(["git", "add", "--all"], self.folder)
        await _run(["git", *who, "commit", "--quiet", "--message", message], self.folder)

    async def container(self, service: str) -> tuple[str, str]:
        """Return the state of a service's container, and when it started."""
        labels = {"project": self.name, "service": service}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        found = await _run(["docker", "ps", "--all", "--quiet", *filters], self.folder)
        words = ["docker", "inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", *found.split()]
        state, _, started_at = (await _run(words, self.folder)).strip().partition(" ")
        return state, started_at

    async def remove(self) -> None:
        """Remove its containers, networks and images; what is not there is no fault."""
        await _ran([*self._compose, "down", "--timeout", "1", "--rmi", "all", "--volumes"], self.folder)
        kept = (f"chiffon-repair-{what}:{self.name}.{SERVICE}" for what in ("before", "candidate"))
        await _ran(["docker", "image", "rm", self.base_image, f"{self.name}-web", *kept], self.folder)

    async def compose(self, *words: str) -> str:
        """Run compose in the directory and return what it printed. Raises `CommandFailed`."""
        return await _run([*self._compose, *words], self.folder)

    @property
    def _compose(self) -> list[str]:
        return [*self.tools.compose, "--project-name", self.name]

    @property
    def _base(self) -> Path:
        return self.folder.with_name("base")

    def repairing(self) -> str:
        """Return the diff that has the service serve its site from where that is."""
        return _diff(self._start(root=WRONG_ROOT), self._start())

    def breaking(self) -> str:
        """Return the diff that has the repaired service listen where nobody asks."""
        return _diff(self._start(), self._start(port=self.other_port))

    def _start(self, *, port: int | None = None, root: str = RIGHT_ROOT) -> str:
        return START.format(port=port or self.port, root=root)

    def _write(self) -> None:
        for folder in (self._base, self.folder / "web" / "site"):
            folder.mkdir(parents=True)
        shutil.copyfile(self.tools.busybox, self._base / "busybox")
        (self._base / "busybox").chmod(0o755)
        names = {"service": SERVICE, "bystander": BYSTANDER, "project": self.name, "base": self.base_image}
        files = {
            self._base / "Dockerfile": BASE_IMAGE,
            self.folder / "docker-compose.yml": COMPOSE_FILE.format(**names),
            self.folder / "web" / "Dockerfile": WEB_IMAGE.format(base=self.base_image, root=RIGHT_ROOT),
            self.folder / "web" / "site" / "index.html": PAGE,
            self.folder / SCRIPT: self._start(root=WRONG_ROOT),
        }
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")


async def find_tools() -> Tools:
    """Return what the demonstration needs. Raises `Missing` with everything that is not there."""
    missing = []
    compose: Sequence[str] = ()
    if shutil.which("docker") is None:
        missing.append("docker: the program is not in PATH; install Docker")
    elif (problem := await _problem(["docker", "version", "--format", "{{.Server.Version}}"])) is not None:
        missing.append(f"docker: the daemon does not answer, so start it: {problem}")
    known = [["docker", "compose"], ["docker-compose"]]
    found = [one for one in known if shutil.which(one[0]) and await _problem([*one, "version", "--short"]) is None]
    if found:
        compose = found[0]
    else:
        missing.append(
            "docker compose: neither it nor docker-compose is there; on Debian: apt-get install docker-compose"
        )
    if shutil.which("git") is None:
        missing.append("git: the program is not in PATH")
    busybox = await asyncio.to_thread(_find_busybox)
    if busybox is None:
        missing.append("busybox: none that needs no libraries; on Debian: apt-get install busybox-static")
    if missing or busybox is None:
        raise Missing(missing)
    return Tools(compose, busybox)


def is_static(program: bytes) -> bool:
    """Say whether an ELF program of 64 bits needs no loader of shared libraries."""
    if program[:6] != b"\x7fELF\x02\x01" or len(program) < 64:
        return False
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    starts = [offset + number * size for number in range(count)]
    if not starts or starts[-1] + 4 > len(program):
        return False
    return all(struct.unpack_from("<I", program, start)[0] != LOADER_SEGMENT for start in starts)


def _find_busybox() -> Path | None:
    named = shutil.which("busybox")
    places = dict.fromkeys([*((named,) if named else ()), *BUSYBOX])
    files = (Path(place) for place in places if Path(place).is_file())
    return next((file for file in files if is_static(file.read_bytes())), None)


def _diff(before: str, after: str) -> str:
    """Return the unified diff of the script, of which one line changes."""
    old, new = before.splitlines(), after.splitlines()
    lines = [f"-{old[1]}", f"+{new[1]}"]
    return "\n".join([f"--- a/{SCRIPT}", f"+++ b/{SCRIPT}", "@@ -1,2 +1,2 @@", f" {old[0]}", *lines, ""])


async def _problem(command: Sequence[str]) -> str | None:
    """Return why a command fails, in one line; None when it does not."""
    try:
        code, output = await _ran(command, Path("/"))
    except OSError as error:
        return error.strerror or str(error)
    lines = [line for line in output.splitlines() if line.strip()]
    return None if code == 0 else (lines[-1] if lines else f"exit status {code}")


async def _run(command: Sequence[str], folder: Path) -> str:
    code, output = await _ran(command, folder)
    if code != 0:
        raise CommandFailed(command, output)
    return output


async def _ran(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a command and return its exit status and what it wrote. Raises `CommandFailed` when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            output, _ = await process.communicate()
    except TimeoutError:
        raise CommandFailed(command, f"It did not end within {LIMIT.total_seconds():g} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")
