"""What an agent demands of its host for work, without trying it."""

import pytest

from agents.executors.enforcement import CannotConfine, Enforcement
from common.confinement import UNCONFINED, Confinement


def test_work_that_demands_what_the_host_cannot_enforce_is_refused() -> None:
    host = Enforcement(possible=frozenset({"sandbox"}))

    with pytest.raises(CannotConfine, match="enforce what is demanded: network_off"):
        host.enclosure(Confinement(network_off=True, sandbox=True))


def test_what_the_host_demands_for_all_work_holds_whatever_the_work_demands() -> None:
    host = Enforcement(least=Confinement(max_open_files=20))

    nothing, more = host.enclosure(UNCONFINED), host.enclosure(Confinement(max_open_files=30, max_cpu_seconds=5))

    assert nothing.confinement == Confinement(max_open_files=20)
    assert more.confinement == Confinement(max_open_files=20, max_cpu_seconds=5)
