"""Whatever a foreign process says of itself, the table can be read, and that process is left alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.processes import table
from agents.processes.table import Target, children_of, descendants, kill_all, look_at
from tests.fuzz.bounds import bounded

# No kernel gives these ids.
PIDS = (9_000_001, 9_000_002)
TARGET = Target("01890000-0000-7000-8000-000000000000", 1, ((PIDS[0], 5),))
OWN = f"CHIFFON_TASK_ID={TARGET.task_id}\0CHIFFON_ATTEMPT=1".encode()
STAT = b"9000001 (sleep) S 1 9000001 9000001 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0"

WORDS = st.sampled_from(
    [b"CHIFFON_TASK_ID=", b"CHIFFON_ATTEMPT=", TARGET.task_id.encode(), b"1", b"9" * 5000, b"-1", b"\0", b"=", b"\xff"]
)
ENVIRONMENTS = st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=12).map(b"".join))
FIELDS = st.one_of(
    st.sampled_from([b"S", b"Z", b"1", b"9" * 5000, b"-1", b"9000001", b")", b"(", "٣".encode()]), st.binary(max_size=9)
)
STATS = st.one_of(
    st.just(STAT),
    st.binary(max_size=200),
    st.lists(FIELDS, max_size=30).map(b" ".join),
    st.lists(FIELDS, max_size=30).map(lambda fields: b"1 (x) " + b" ".join(fields)),
)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(table, "PROC", str(tmp_path))
    for pid in PIDS:
        (tmp_path / str(pid) / "task" / str(pid)).mkdir(parents=True)
    (tmp_path / ("9" * 5000)[:200]).mkdir()
    (tmp_path / "٣").mkdir()
    return tmp_path


@bounded(150)
@given(stat=STATS, environ=ENVIRONMENTS, children=st.one_of(STATS, st.just(b"9000002 ")))
def test_no_process_makes_the_reading_of_the_table_fail(
    proc: Path, stat: bytes, environ: bytes, children: bytes
) -> None:
    for pid in PIDS:
        (proc / str(pid) / "stat").write_bytes(stat)
        (proc / str(pid) / "environ").write_bytes(environ)
        (proc / str(pid) / "task" / str(pid) / "children").write_bytes(children if pid == PIDS[0] else b"")

    seen = look_at(PIDS[0])

    assert seen is None or seen.group < 2**31
    assert {one.pid for one in descendants(PIDS[0])} <= set(children_of(PIDS[0])) - {PIDS[0]}
    assert kill_all([TARGET], within=0.001) == set()


def test_a_process_is_known_by_exactly_the_ids_of_its_attempt(proc: Path) -> None:
    for environ, is_own in (
        (OWN, True),
        (b"A=\xff\0" + OWN + b"\0B=1\0", True),
        (OWN + b"1", False),
        (OWN.replace(b"ATTEMPT=1", b"ATTEMPT=01"), False),
        (OWN.replace(b"ATTEMPT=1", b"ATTEMPT=" + b"1" * 5000), False),
        (OWN.replace(b"\0", b""), False),
        (b"X" + OWN, False),
    ):
        for pid in PIDS:
            (proc / str(pid) / "stat").write_bytes(STAT.replace(b" 9000001", b" 9000007"))
            (proc / str(pid) / "environ").write_bytes(environ)

        found = table._find([TARGET._replace(groups=())])

        assert len(found) == (len(PIDS) if is_own else 0)
