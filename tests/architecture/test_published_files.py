"""What leaves this repository: no path of one machine, no registry's host, and every value of compose explained."""

import re

from tests.architecture.source import ROOT, published_files

# Written as patterns, so that this file does not name what it forbids.
HOSTS = r"pypi\.org|pythonhosted\.org|npmjs\.org|deb\.debian\.org|docker\.io/|ghcr\.io"
PATHS = r"(?<![\w.$}~*-])/(work|farm|root|home|Users)/\w"
PLACES = re.compile(f"{HOSTS}|{PATHS}")
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<default>:?[-?][^}]*)?\}")


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()[:100]}"
        for path in published_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if PLACES.search(line)
    ]

    assert not found, "\n".join(found)


def test_every_value_of_compose_is_explained_in_the_example() -> None:
    used = {match["name"] for match in VARIABLE.finditer(_text("docker-compose.yaml"))}
    explained = set(re.findall(r"^([A-Z][A-Z0-9_]*)=", _text(".env.example"), re.MULTILINE))

    assert used == explained, (
        f"only in docker-compose.yaml: {used - explained}; only in .env.example: {explained - used}"
    )


def test_every_value_of_the_example_has_a_comment_above_it() -> None:
    lines = _text(".env.example").splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(r"[A-Z]", line) and not above.startswith("# ")
    ]

    assert not bare, "\n".join(bare)


def test_compose_is_indented_with_spaces_and_repeats_no_key_of_a_service() -> None:
    text = _text("docker-compose.yaml")
    services = re.findall(r"^  ([\w-]+):$", text.partition("\nservices:\n")[2].partition("\nvolumes:")[0], re.MULTILINE)

    assert "\t" not in text
    assert sorted(services) == ["agent", "keys", "migrate", "orchestrator", "postgres", "rabbitmq"]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
