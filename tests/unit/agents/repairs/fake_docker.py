"""Play `docker` and `docker-compose` on a state of its own: images, their names, containers.

The programs are small scripts that ask a thread of the tests over a socket: a Python for each of the many calls of a
repair would cost more than all else. Compose files are JSON, which is YAML, too. The image of a service is made of the
file `app.txt` beside its compose file: with `fails to build` in it, it cannot be built, unless FOLDER/mended is there,
and with `crashes` its container ends at once. FOLDER/state.json is the state, FOLDER/calls what was called, and
FOLDER/kill, as `NUMBER before|inside|after PID`, names a call at which that process is killed; the call then waits for
its own end. FOLDER/away: the daemon does not answer. FOLDER/newer: there is a newer compose, too, `docker compose`.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = ("docker", "docker-compose")
# What it is asked is words that end in NUL, an empty one last; each line of the answer begins with its kind.
SCRIPT = """#!/bin/bash
# played {port} {program} {folder}
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\0' {folder} "${{DB_PASSWORD:-nowhere}}" {program} "$@" '' >&3
while IFS= read -r -u 3 line; do
  case $line in
    o*) printf '%s\\n' "${{line:1}}" ;;
    e*) printf '%s\\n' "${{line:1}}" >&2 ;;
    x*) exit "${{line:1}}" ;;
  esac
done
exit 125
"""
PLAYED = re.compile(rb"#!/bin/bash\n# played (\d+) (\S+) (.*)\n")
READ_BYTES = 65536
State = dict[str, Any]
EMPTY: State = {"images": {}, "names": {}, "containers": [], "made": 0}


@dataclass(frozen=True, slots=True)
class Player:
    """Who answers for a program, so that one can ask without the script: a port, and what the program is called."""

    port: int
    program: str
    folder: str

    def question(self, words: Sequence[str], variables: Mapping[str, str]) -> bytes:
        asked = [self.folder, variables.get("DB_PASSWORD") or "nowhere", self.program, *words, ""]
        return "".join(f"{word}\0" for word in asked).encode()


def player_of(program: Path) -> Player | None:
    """Return who answers for a program; None for one that is not played."""
    with program.open("rb") as file:
        found = PLAYED.match(file.read(1024))
    if found is None:
        return None
    [folder] = shlex.split(found[3].decode())
    return Player(int(found[1]), found[2].decode(), folder)


class Refused(Exception):
    """The call fails, with this on standard error."""


class Killed(Exception):
    """The call is cut off by a kill, and changes nothing any more."""


class FakeDocker:
    """Answers the programs that it installs. Use it as a context manager."""

    def __init__(self) -> None:
        self._server = Server(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(target=self._server.serve_forever, name="fake docker")

    def __enter__(self) -> "FakeDocker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def install(self, place: Path, folder: Path) -> None:
        """Put the programs into a directory; their state is in a folder."""
        port = self._server.server_address[1]
        for program in PROGRAMS:
            script = place / program
            script.write_text(SCRIPT.format(port=port, folder=shlex.quote(str(folder)), program=program))
            script.chmod(0o755)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.lock = threading.Lock()


class Connection(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        asked = b""
        while not asked.endswith(b"\0\0"):
            data = self.request.recv(READ_BYTES)
            if not data:
                return
            asked += data
        folder, password, *argv = asked.decode().removesuffix("\0\0").split("\0")
        call = Call(self, Path(folder), password, argv)
        with contextlib.suppress(ConnectionError):
            self._answer(call)

    def _answer(self, call: "Call") -> None:
        try:
            with self.server.lock:
                call.note()
                call.kill_at("before")
                run(call)
            call.kill_at("after")
        except Killed:
            while self.request.recv(READ_BYTES):
                pass
            return
        except Refused as problem:
            self.say("e", str(problem))
            self.say("x", "1")
            return
        self.say("x", "0")

    def say(self, kind: str, text: str) -> None:
        self.request.sendall("".join(f"{kind}{line}\n" for line in text.splitlines()).encode())


class Call:
    """One call of a program. What it prints arrives at once."""

    def __init__(self, connection: Connection, folder: Path, password: str, argv: list[str]) -> None:
        self._connection = connection
        self._kill: tuple[str, int] | None = None
        self.folder = folder
        self.password = password
        self.argv = argv

    def say(self, text: str) -> None:
        self._connection.say("o", text)

    def note(self) -> None:
        """Write down that it was called, and find out whether something is killed during it."""
        with (self.folder / "calls").open("a+") as calls:
            calls.seek(0)
            number = len(calls.readlines())
            calls.write(json.dumps(self.argv) + "\n")
        with contextlib.suppress(FileNotFoundError):
            at, when, pid = (self.folder / "kill").read_text().split()
            if int(at) == number:
                self._kill = when, int(pid)

    def kill_at(self, moment: str) -> None:
        if self._kill is not None and self._kill[0] == moment:
            os.kill(self._kill[1], signal.SIGKILL)
            raise Killed


def run(call: Call) -> None:
    program, *words = call.argv
    if (call.folder / "away").exists() and not is_local(program, words):
        raise Refused("Cannot connect to the Docker daemon at unix:///fake.sock. Is the docker daemon running?")
    with open_state(call) as state:
        if program == "docker" and words[0] == "compose" and (call.folder / "newer").exists():
            compose(call, state, words[1:], major=2)
        elif program == "docker":
            docker(call, state, words)
        else:
            compose(call, state, words, major=1)


def is_local(program: str, words: list[str]) -> bool:
    """Say whether a call needs no daemon."""
    return (program == "docker-compose" or words[0] == "compose") and ("version" in words or "config" in words)


@contextlib.contextmanager
def open_state(call: Call) -> Iterator[State]:
    path = call.folder / "state.json"
    state = json.loads(path.read_text()) if path.exists() else dict(EMPTY)
    try:
        yield state
    except Refused:
        save(call, state)
        raise
    save(call, state)


def save(call: Call, state: State) -> None:
    draft = call.folder / "state.new"
    draft.write_text(json.dumps(state))
    draft.replace(call.folder / "state.json")


def docker(call: Call, state: State, words: list[str]) -> None:
    match words:
        case ["version", *_]:
            call.say("20.10.fake")
        case ["ps", *rest]:
            wanted = [word.removeprefix("--filter=label=") for word in rest if word.startswith("--filter=label=")]
            shown_as = {"--format={{.ID}}": "id", "--format={{.Names}}": "name"}
            [key] = [shown_as[word] for word in rest if word.startswith("--format")]
            for one in state["containers"]:
                if set(wanted) <= set(one["labels"]):
                    call.say(one[key])
        case ["container", "inspect", *ids]:
            call.say(json.dumps([shown(one) for one in state["containers"] if one["id"] in ids]))
        case ["container", "rm", "--force", *ids]:
            state["containers"] = [one for one in state["containers"] if one["id"] not in ids]
        case ["image", "inspect", "--format", "{{.Id}}", name]:
            call.say(image_of(state, name))
        case ["image", "tag", image, name]:
            tag(state, image, name)
        case ["image", "rm", "--no-prune", name]:
            image_of(state, name)
            del state["names"][with_tag(name)]
        case _:
            raise Refused(f"docker: {words} is not played")


def tag(state: State, image: str, name: str) -> None:
    if "@" in name:
        raise Refused("refusing to create a tag with a digest reference")
    state["names"][with_tag(name)] = image_of(state, image)


def compose(call: Call, state: State, words: list[str], *, major: int) -> None:
    options, words = parted(words)
    if words[0] == "version":
        call.say("1.29.2" if major == 1 else "v2.24.6")
        return
    files = [Path(name) for name in options["--file"]]
    project = options["--project-name"][0]
    services: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, service in json.loads(file.read_text())["services"].items():
            services[name] = {**services.get(name, {}), **service}
    match words:
        case ["config"]:
            call.say(as_yaml(services))
        case ["config", "--format", "json"] if major == 2:
            call.say(json.dumps({"name": project, "services": services}))
        case ["build", *flags, name] if flags == ["--force-rm"] * (major == 1):
            build(call, state, services[name], f"{project}{'_-'[major - 1]}{name}", files[0].parent)
        case ["up", *flags, name]:
            if name not in services:
                raise Refused(f"No such service: {name}")
            assert "--no-deps" in flags
            named = services[name].get("image", f"{project}{'_-'[major - 1]}{name}")
            scale = [int(word.rpartition("=")[2]) for word in flags if word.startswith(f"{name}=")]
            up(call, state, named, name, project, number=sum(scale) or 1, is_started="--no-start" not in flags)
        case _:
            raise Refused(f"docker-compose: {words} is not played")


def parted(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options that stand before what is to be done, and that."""
    options: dict[str, list[str]] = {}
    while words and words[0].startswith("--"):
        options.setdefault(words[0], []).append(words[1])
        words = words[2:]
    return options, words


def as_yaml(services: dict[str, dict[str, Any]]) -> str:
    lines = ["services:"]
    for name in sorted(services):
        lines.append(f"  {name}:")
        if "build" in services[name]:
            lines += ["    build:", "      context: /somewhere"]
        if "image" in services[name]:
            lines.append(f"    image: {services[name]['image']}")
    return "\n".join([*lines, "version: '3'", ""])


def build(call: Call, state: State, service: State, name: str, place: Path) -> None:
    if "build" not in service:
        call.say(f"{name} uses an image, skipping")
        return
    content = (place / "app.txt").read_text()
    call.say(f"Building {name}\npassword is {call.password}")
    call.kill_at("inside")
    if "fails to build" in content and not (call.folder / "mended").exists():
        raise Refused("The command '/bin/sh -c false' returned a non-zero code: 1")
    image = "sha256:" + hashlib.sha256(content.encode()).hexdigest()
    state["images"][image] = content
    state["names"][with_tag(service.get("image", name))] = image
    call.say(f"Successfully built {image[7:19]}")


def up(call: Call, state: State, named: str, name: str, project: str, *, number: int, is_started: bool) -> None:
    image = image_of(state, named)
    labels = [
        f"com.docker.compose.project={project}",
        f"com.docker.compose.service={name}",
        "com.docker.compose.oneoff=False",
    ]
    state["containers"] = [one for one in state["containers"] if one["labels"] != labels]
    save(call, state)
    call.kill_at("inside")
    crashes = "crashes" in state["images"][image]
    for position in range(1, number + 1):
        state["made"] += 1
        state["containers"].append(
            {
                "id": f"{state['made']:064}",
                "name": f"{project}_{name}_{position}",
                "image": image,
                "labels": labels,
                "started": state["made"] if is_started else 0,
                "status": "created" if not is_started else "exited" if crashes else "running",
            }
        )


def shown(container: State) -> State:
    status = container["status"]
    return {
        "Id": container["id"],
        "Name": f"/{container['name']}",
        "Image": container["image"],
        "RestartCount": 0,
        "State": {"Status": status, "ExitCode": 3 * (status == "exited"), "StartedAt": str(container["started"])},
        "HostConfig": {"RestartPolicy": {"Name": "no"}},
    }


def image_of(state: State, name: str) -> str:
    if name in state["images"]:
        return name
    try:
        image: str = state["names"][with_tag(name)]
    except KeyError:
        raise Refused(f"Error: No such image: {name}") from None
    return image


def with_tag(name: str) -> str:
    return name if ":" in name else f"{name}:latest"
