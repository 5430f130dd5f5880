"""The file of services: what it may say, and what its mistakes are called."""

from pathlib import Path

import pytest

from common.policy.model import ApprovalDemand
from common.private import NotPrivate
from common.services import InvalidServices, Requirement, Service, parse_services
from orchestrator.repairs.profiles import Services, UnknownService, open_services

FILE = """
[service.web]
project = "shop"
workspace = "/srv/shop"
compose_files = ["compose.yml", "compose.prod.yml"]
allowlist = ["web/**", "requirements.txt"]
commands_allowed = [["sed", "-i"], ["pip-compile"]]
commands = [["sed", "-i", "s/1/2/", "requirements.txt"]]
labels = { host = "shop-1" }
agent_type = "infra"
restart_timeout_seconds = 30

[service.web.healthcheck]
url = "http://127.0.0.1:8080/health"
timeout_seconds = 20

[service.web.approval]
requirement = "pre-verify"
approvers = 2
roles = ["approver", "admin"]
valid_minutes = 30

[service.web-staging]
service = "web"
project = "staging"
workspace = "/srv/staging"
allowlist = ["**"]
"""


def services(text: str = FILE) -> dict[str, Service]:
    return parse_services(text, source="services.toml")


def test_a_service_is_what_its_table_says() -> None:
    web = services()["web"]

    assert web.profile.model_dump(mode="json") == {
        "project": "shop",
        "workspace": "/srv/shop",
        "compose_files": ["compose.yml", "compose.prod.yml"],
        "allowlist": ["web/**", "requirements.txt"],
        "commands_allowed": [["sed", "-i"], ["pip-compile"]],
        "healthcheck": {
            "url": "http://127.0.0.1:8080/health",
            "method": "GET",
            "timeout_seconds": 20.0,
            "interval_seconds": 5.0,
            "expected_status": 200,
        },
        "restart_timeout_seconds": 30.0,
        "compose_command": None,
    }
    assert (web.labels, web.agent_type, web.requirement) == ({"host": "shop-1"}, "infra", Requirement.PRE_VERIFY)
    assert web.approval is not None
    assert web.approval.demand == ApprovalDemand(approvers=2, roles=("approver", "admin"), valid_minutes=30)


def test_nobody_is_asked_about_a_service_without_a_gate() -> None:
    assert services()["web-staging"].requirement is Requirement.NONE


@pytest.mark.parametrize("meant", ["web", " web ", "WEB", "\tWeb\n"])
def test_a_service_is_found_in_any_case_and_with_spaces_around_its_name(meant: str) -> None:
    assert Services(services()).get(meant).name == "web"


def test_compose_may_know_a_service_by_another_name() -> None:
    known = Services(services())

    assert (known.get("web").compose_service, known.get("web-staging").compose_service) == ("web", "web")


@pytest.mark.parametrize("meant", ["", "we", "web2", "web web", "service.web", "ẁeb", "web\x00"])
def test_an_unknown_service_is_refused_with_those_that_are_known(meant: str) -> None:
    with pytest.raises(UnknownService, match=r"is not known\. Allowed: web, web-staging\."):
        Services(services()).get(meant)


def test_without_a_file_there_is_no_service() -> None:
    with pytest.raises(UnknownService, match="none, for there is no service"):
        open_services(None).get("web")


HOST = 'project = "p"\nworkspace = "/w"\nallowlist = ["**"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[service.Web]\n" + HOST, "[service.Web]: the name of a service has lower-case letters"),
        ('[service."a b"]\n' + HOST, "[service.a b]: the name of a service has"),
        (f"[service.{'a' * 64}]\n" + HOST, "at most 63 characters"),
        ("[services.web]\n" + HOST, "services: is not known here (did you mean 'service'?); allowed: service."),
        ("version = 1", "version: is not known here; allowed: service."),
        ("service = 1", "service: must be an object."),
        ("[service]\nweb = 1", "[service.web]: must be an object"),
        ("[[service]]\nname = 'web'", "service: must be an object."),
        ("[service.web]\n" + HOST.replace('project = "p"\n', ""), "[service.web] project: Field required."),
        ("[service.web]\n" + HOST.replace('workspace = "/w"\n', ""), "[service.web] workspace: Field required."),
        ("[service.web]\n" + HOST.replace('allowlist = ["**"]\n', ""), "[service.web] allowlist: Field required."),
        ("[service.web]\n" + HOST.replace('"p"', '"P"'), "[service.web] project: "),
        ("[service.web]\n" + HOST.replace('"/w"', '"w"'), "[service.web] workspace: must be an absolute path"),
        ("[service.web]\n" + HOST.replace('"/w"', '"/w/../x"'), "[service.web] workspace: must be an absolute path"),
        ("[service.web]\n" + HOST.replace('"/w"', '"/"'), "[service.web] workspace: must be an absolute path"),
        ("[service.web]\n" + HOST.replace('["**"]', "[]"), "[service.web] allowlist: "),
        ("[service.web]\n" + HOST.replace('["**"]', '"**"'), "[service.web] allowlist: Input should be a valid list."),
        ("[service.web]\n" + HOST.replace('"**"', '"a", "/etc/*"'), "[service.web] allowlist.1: must be a path rel"),
        ("[service.web]\n" + HOST.replace('"**"', '"../*"'), "[service.web] allowlist.0: must be a path relative"),
        ("[service.web]\n" + HOST.replace('"**"', '"a**"'), "[service.web] allowlist.0: must have '**' as a whole"),
        ("[service.web]\n" + HOST + "compose_files = []", "[service.web] compose_files: "),
        ("[service.web]\n" + HOST + 'compose_files = ["/c.yml"]', "[service.web] compose_files.0: must be a path rel"),
        ("[service.web]\n" + HOST + 'service = "a b"', "[service.web] service: "),
        ("[service.web]\n" + HOST + 'commands_allowed = ["sed"]', "[service.web] commands_allowed.0: Input should"),
        ("[service.web]\n" + HOST + "commands_allowed = [[]]", "[service.web] commands_allowed.0: List should have"),
        ("[service.web]\n" + HOST + 'commands = ["sed"]', "[service.web] commands.0: Input should be a valid list."),
        ("[service.web]\n" + HOST + "commands = []", "[service.web] commands: List should have at least 1 item"),
        (
            "[service.web]\n" + HOST + 'commands_allowed = [["sed", "-i"]]\ncommands = [["sed", "-n"]]',
            "[service.web]: command 1 begins with 'sed', and commands_allowed has nothing that it begins with",
        ),
        ("[service.web]\n" + HOST + "labels = { a = [1] }", "[service.web] labels: a: must be a text"),
        ("[service.web]\n" + HOST + "labels = { a = nan }", "[service.web] labels: a: must be a number"),
        ("[service.web]\n" + HOST + "labels = { a = 2026-11-30 }", "[service.web] labels: a: must be a text"),
        ("[service.web]\n" + HOST + 'agent_type = "Infra"', "[service.web] agent_type: "),
        ("[service.web]\n" + HOST + 'restart_timeout_seconds = "60"', "[service.web] restart_timeout_seconds: must be"),
        ("[service.web]\n" + HOST + "restart_timeout_seconds = 0", "[service.web] restart_timeout_seconds: "),
        ("[service.web]\n" + HOST + "restart_timeout_seconds = nan", "[service.web] restart_timeout_seconds: "),
        ("[service.web]\n" + HOST + "compose_command = []", "[service.web] compose_command: "),
        (
            "[service.web]\n" + HOST + "allow_list = []",
            "[service.web] allow_list: is not known here (did you mean 'allowlist'?); allowed: agent_",
        ),
        ("[service.web]\n" + HOST + "healthcheck = {}", "[service.web] healthcheck.url: Field required."),
        (
            "[service.web]\n" + HOST + 'healthcheck = { url = "ftp://x" }',
            "[service.web] healthcheck.url: must be an address",
        ),
        (
            "[service.web]\n" + HOST + 'healthcheck = { url = "http://x", method = "get" }',
            "[service.web] healthcheck.method: ",
        ),
        (
            "[service.web]\n" + HOST + 'healthcheck = { url = "http://x", timeout = 5 }',
            "[service.web] healthcheck.timeout: is not known here; allowed: expected_status",
        ),
        (
            "[service.web]\n" + HOST + 'healthcheck = { url = "http://x", expected_status = 20 }',
            "[service.web] healthcheck.expected_status: ",
        ),
        ("[service.web]\n" + HOST + "approval = {}", "[service.web] approval.requirement: Field required."),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre_run" }',
            "[service.web] approval.requirement: Input should be 'none', 'pre-run' or 'pre-verify'.",
        ),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre-run", valid_minutes = 4 }',
            "[service.web] approval.valid_minutes: ",
        ),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre-run", roles = [] }',
            "[service.web] approval.roles: ",
        ),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre-run", roles = ["boss"] }',
            "[service.web] approval.roles: 'boss' is no role; allowed: viewer, operator, approver, admin, agent.",
        ),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre-run", approvers = 0 }',
            "[service.web] approval.approvers: ",
        ),
        (
            "[service.web]\n" + HOST + 'approval = { requirement = "pre-run", who = "me" }',
            "[service.web] approval.who: is not known here; allowed: approvers, request_minutes, requirement, roles",
        ),
        ("[service.web", "services.toml cannot be read: "),
        ("[service.web]\n[service.web]", "services.toml cannot be read: "),
        (f"x = {'{a=' * 5000}", "services.toml cannot be read: it is nested too deeply."),
    ],
)
def test_every_mistake_is_one_line_that_names_file_table_and_key(text: str, said: str) -> None:
    with pytest.raises(InvalidServices) as caught:
        services(text)

    (line,) = caught.value.mistakes
    assert line.startswith("services.toml")
    assert said in line
    assert line.endswith(".")
    assert "\n" not in line


def test_all_mistakes_are_named_at_once() -> None:
    text = "[service.a]\nproject = 1\n[service.B]\nworkspace = 'w'\n[service.c]\n" + HOST + "x = 1"

    with pytest.raises(InvalidServices) as caught:
        services(text)

    places = sorted({line.partition(":")[2].strip().partition(":")[0] for line in caught.value.mistakes})
    assert places == [
        "[service.B]",
        "[service.B] allowlist",
        "[service.B] project",
        "[service.B] workspace",
        "[service.a] allowlist",
        "[service.a] project",
        "[service.a] workspace",
        "[service.c] x",
    ]
    assert str(caught.value).splitlines()[1:] == list(caught.value.mistakes)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "no text").write_bytes(b"\xff")

    for name in ("nothing", "no text", "."):
        with pytest.raises(InvalidServices, match=r"cannot be read: "):
            open_services(tmp_path / name)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "services.toml"
    file.write_text(FILE)
    assert set(open_services(file).known) == {"web", "web-staging"}

    file.chmod(0o666)
    with pytest.raises(NotPrivate, match="can be written by every user"):
        open_services(file)
