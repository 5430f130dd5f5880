"""The locks: complete, hashed, within what pyproject.toml asks for, and free of any place to download from."""

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.source import ROOT

PROJECT_LOCKS = ("requirements.txt", "requirements-dev.txt")
LOCKS = (*PROJECT_LOCKS, "bench/requirements.txt")
PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)(\[[a-z0-9,-]+\])?==(?P<version>\S+?)( ; .+)?")
PLACE = re.compile(r"://|--(extra-)?index|--find-links|--trusted|@|file:")
EXTRAS = re.compile(r"\[.*\]")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: str) -> None:
    loose = [line for line in _requirements(lock) if not _is_whole(line)]

    assert not loose, "not pinned with hashes:\n" + "\n".join(loose)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_to_download_from(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")

    places = [line for line in text.splitlines() if PLACE.search(line)]

    assert not places, "\n".join(places)


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    project = _pyproject()
    runtime = [*project["project"]["dependencies"], *project["build-system"]["requires"]]

    missing = _missing(runtime, "requirements.txt")
    missing += _missing([*runtime, *project["dependency-groups"]["dev"]], "requirements-dev.txt")

    assert not missing, "run `make lock`:\n" + "\n".join(missing)


def test_the_lock_of_the_bench_holds_what_it_asks_for() -> None:
    missing = _missing(_requirements("bench/requirements.in"), "bench/requirements.txt")

    assert not missing, "run `make lock`:\n" + "\n".join(missing)


def test_the_dev_lock_holds_the_whole_runtime_lock() -> None:
    runtime, dev = (set(_requirements(lock)) for lock in PROJECT_LOCKS)

    assert runtime <= dev, "run `make lock`:\n" + "\n".join(line.split()[0] for line in sorted(runtime - dev))


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _requirements(lock: str) -> list[str]:
    """Return the lines of a lock, each whole: continuation lines joined, comments gone."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _is_whole(line: str) -> bool:
    requirement, *hashes = re.split(r" (?=--hash)", line)
    return bool(PINNED.fullmatch(requirement) and hashes and all(HASH.fullmatch(part) for part in hashes))


def _missing(wanted: list[str], lock: str) -> list[str]:
    """Return what a lock lacks or pins to a version that is not wanted."""
    pinned = (EXTRAS.sub("", line.split()[0]).split("==") for line in _requirements(lock))
    versions = {canonicalize_name(name): version for name, version in pinned}
    requirements = map(Requirement, wanted)
    return [
        f"{lock} lacks {one}"
        for one in requirements
        if (version := versions.get(canonicalize_name(one.name))) is None or version not in one.specifier
    ]
