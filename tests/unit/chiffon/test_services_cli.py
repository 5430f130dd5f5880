"""`chiffon services`: a file is checked and listed, and every mistake in it is named."""

import json
from pathlib import Path

import pytest

from chiffon.cli import services
from chiffon.cli.outcome import Exit, Usage, explain_failure
from common.services import InvalidServices
from tests.unit.orchestrator.repairs.test_profiles import FILE


def call(*arguments: str) -> int:
    return int(services.app(list(arguments), print_error=False, exit_on_error=False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "services.toml"
    path.write_text(FILE)
    return path


def test_a_good_file_is_counted(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("check", str(file)) == Exit.OK
    assert capfd.readouterr().out == f"{file}: 2 of 2 services are good\n"

    assert call("check", str(file), "-o", "json") == Exit.OK
    assert json.loads(capfd.readouterr().out) == {"file": str(file), "services": ["web", "web-staging"]}


def test_all_mistakes_are_listed_and_the_exit_status_says_so(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text(FILE.replace('project = "shop"\n', "").replace('"/srv/staging"', '"staging"'))

    with pytest.raises(InvalidServices) as caught:
        call("check", str(file))
    assert explain_failure(caught.value) == Exit.ERROR

    title, *lines = capfd.readouterr().err.splitlines()
    assert title == "chiffon: These services are not usable (0 of 2 services are good):"
    assert [line.partition(": ")[0].strip() for line in lines] == [str(file), str(file)]
    assert "[service.web] project: Field required." in lines[0]
    assert "[service.web-staging] workspace: must be an absolute path" in lines[1]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        (FILE.replace('"/srv/staging"', '"staging"'), "These services are not usable (1 of 2 services is good):"),
        ("[services.web]", "These services are not usable:"),
        ("[service", "These services are not usable:"),
    ],
)
def test_a_file_with_mistakes_says_how_many_services_are_good(file: Path, text: str, title: str) -> None:
    file.write_text(text)

    with pytest.raises(InvalidServices) as caught:
        call("check", str(file))

    assert str(caught.value).splitlines()[0] == title


@pytest.mark.parametrize("command", ["check", "list"])
def test_a_file_that_is_not_usable_or_not_there_ends_both_commands_alike(file: Path, command: str) -> None:
    for path in (file, file.with_name("missing.toml")):
        file.write_text("[service.web]")
        with pytest.raises(InvalidServices) as caught:
            call(command, str(path))
        assert explain_failure(caught.value) == Exit.ERROR


def test_the_file_of_the_settings_is_taken_when_none_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIFFON_SERVICES_FILE", str(file))

    assert call("check") == Exit.OK
    assert capfd.readouterr().out == f"{file}: 2 of 2 services are good\n"


def test_without_any_file_the_command_says_how_to_name_one() -> None:
    with pytest.raises(Usage, match="CHIFFON_SERVICES_FILE"):
        call("list")


def test_services_are_listed(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("list", str(file)) == Exit.OK

    head, web, staging = capfd.readouterr().out.splitlines()
    assert head.split() == ["SERVICE", "PROJECT", "WORKSPACE", "LABELS", "PROBE", "APPROVAL"]
    assert web.split("  ")[0] == "web"
    assert "pre-verify: 2 of approver, admin" in web
    assert "http://127.0.0.1:8080/health" in web
    assert "host=shop-1" in web
    assert staging.split() == ["web-staging", "staging", "/srv/staging", "-", "-", "none"]


def test_services_are_listed_as_json(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("list", str(file), "-o", "json") == Exit.OK

    web, staging = json.loads(capfd.readouterr().out)
    assert (web["name"], web["approval"]["requirement"], web["labels"]) == ("web", "pre-verify", {"host": "shop-1"})
    assert (staging["name"], staging["service"], staging["approval"]) == ("web-staging", "web", None)
