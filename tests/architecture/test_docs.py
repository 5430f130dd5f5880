"""The documentation: its generated parts are those of the code, its links lead somewhere, and nothing is left out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.events.model import Kind
from orchestrator.http.errors import BAD_PARAMETERS
from orchestrator.live.api import FELL_BEHIND
from tests.architecture.regenerate_docs import PAGES, path_of, regenerated
from tests.architecture.source import ROOT
from tests.openapi import DOCUMENT

HOW = "run: .venv/bin/python -m tests.architecture.regenerate_docs"
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
QUEUE_API = "/api/queue/"
# In errors.md.
DESCRIBED_ELSEWHERE = {"ErrorResponse", "FieldProblem"}
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_generated_page_says_what_the_code_says(page: str) -> None:
    text = path_of(page).read_text(encoding="utf-8")

    assert text == regenerated(page, text), f"docs/{page} is older than the code; {HOW}"


def test_every_relative_link_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in _pages()
        for target in _targets(page)
        if "://" not in target and not _exists(page, target)
    ]

    assert not broken, "\n".join(broken)


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (target.partition("#")[0] for target in _targets(page) if "://" not in target)
        waiting += [(page.parent / link).resolve() for link in links if link]
    lost = [page.relative_to(ROOT).as_posix() for page in _pages() if page not in reached]

    assert not lost, f"no way leads from README.md to: {', '.join(lost)}"


def test_the_readme_begins_with_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()

    assert "make demo" in lines
    assert "make test" in lines


def test_every_kind_of_event_is_described() -> None:
    described = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", _reference("events.md"), re.MULTILINE)

    assert described == [kind.value for kind in Kind]


def test_every_close_code_of_the_feed_is_described() -> None:
    described = set(re.findall(r"^\| (\d{4}) \|", _reference("websocket.md"), re.MULTILINE))

    assert {str(FELL_BEHIND), str(BAD_PARAMETERS)} <= described


def test_every_field_and_parameter_of_the_queue_api_is_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    methods = [
        method for path, one in DOCUMENT["paths"].items() if path.startswith(QUEUE_API) for method in one.values()
    ]
    found, waiting = set[str](), list(_schemas_in(methods))
    while waiting:
        name = waiting.pop()
        if name not in found and name not in DESCRIBED_ELSEWHERE:
            found.add(name)
            waiting += _schemas_in(schemas[name])
    fields = {field for name in found for field in schemas[name].get("properties", ())}
    parameters = {one["name"] for method in methods for one in method.get("parameters", ()) if one["in"] == "query"}
    described = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", _reference("queue-api.md")))))

    assert {"trustedKeys", "keys", "bootId"} <= fields
    assert not (fields | parameters) - described


def test_every_decision_is_in_the_list() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (decisions / "README.md").read_text(encoding="utf-8"))

    assert listed == sorted(path.name for path in decisions.glob("0*.md"))


def _schemas_in(part: object) -> Iterator[str]:
    """Return the names of the schemas that a part of the API's description refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield str(part["$ref"]).rpartition("/")[2]
        for inner in part.values():
            yield from _schemas_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _schemas_in(inner)


def _pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def _targets(page: Path) -> list[str]:
    return [match["target"] for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8")))]


def _exists(page: Path, target: str) -> bool:
    link, _, anchor = target.partition("#")
    path = (page.parent / link).resolve() if link else page
    if not path.exists():
        return False
    return not anchor or anchor in _anchors(path)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are shown on the web."""
    titles = (match["title"] for match in HEADING.finditer(CODE.sub("", page.read_text(encoding="utf-8"))))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def _reference(page: str) -> str:
    return path_of(f"reference/{page}").read_text(encoding="utf-8")
