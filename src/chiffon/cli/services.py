"""`chiffon services`: check a file of services, and list what is in it. Nothing is asked of any server."""

from pathlib import Path

from cyclopts import App

from chiffon.cli.console import print_json, print_table, put
from chiffon.cli.options import AS_TABLE, Printing
from chiffon.cli.outcome import Exit, Usage
from common.services import Requirement, Service, good_of, read_services

COLUMNS = ("SERVICE", "PROJECT", "WORKSPACE", "LABELS", "PROBE", "APPROVAL")

app = App(
    name="services",
    group_commands="Commands",
    help="Check the file of services that can be repaired, and list them.",
    result_action="return_value",
)


@app.command
def check(file: Path | None = None, /, *, printing: Printing = AS_TABLE) -> int:
    """Check a file of services; every mistake is named by its table and key, all of them at once.

    ```
    chiffon services check services.toml
    ```

    Exit status 1: the orchestrator would not start with it.

    Parameters
    ----------
    file
        The file, in TOML; without it, the `services_file` of the orchestrator's settings.
    """
    path = _path(file)
    services = read_services(path)
    if printing.is_json:
        print_json({"file": str(path), "services": sorted(services)})
    else:
        put(f"{path}: {good_of(len(services), len(services))}")
    return Exit.OK


@app.command(name="list")
def list_(file: Path | None = None, /, *, printing: Printing = AS_TABLE) -> int:
    """List the services that can be repaired.

    ```
    chiffon services list
    ```

    Exit status 1: the file is not usable; `chiffon services check` says the same of it.

    Parameters
    ----------
    file
        The file, in TOML; without it, the `services_file` of the orchestrator's settings.
    """
    services = sorted(read_services(_path(file)).items())
    if printing.is_json:
        print_json([{"name": name, **service.model_dump(mode="json")} for name, service in services])
    else:
        print_table(COLUMNS, [_row(name, service) for name, service in services])
    return Exit.OK


def _path(file: Path | None) -> Path:
    if file is not None:
        return file
    from orchestrator.settings import OrchestratorSettings

    path = OrchestratorSettings.load().services_file
    if path is None:
        raise Usage("name a file, or set CHIFFON_SERVICES_FILE: there is no file of services")
    return path


def _row(name: str, service: Service) -> tuple[object, ...]:
    gate = service.approval
    asked = "none"
    if gate is not None and gate.requirement is not Requirement.NONE:
        asked = f"{gate.requirement}: {gate.approvers} of {', '.join(gate.roles)}"
    return (
        name,
        service.project,
        service.workspace,
        ", ".join(f"{label}={value}" for label, value in service.labels.items()) or None,
        None if service.healthcheck is None else service.healthcheck.url,
        asked,
    )
