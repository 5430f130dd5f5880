"""Whatever is done to a log, the verifier names the first event that it was done to."""

import hashlib
from dataclasses import replace
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.audit.model import End, Flaw
from orchestrator.audit.verifier import Verifier
from orchestrator.events.chain import entry_of, link
from tests import fixed
from tests.unit.orchestrator import audit_logs as logs
from tests.unit.orchestrator.audit_logs import BEGIN, Change, Log, checkpoint, make_log, verify

LENGTH = 9
PLACES = st.integers(1, LENGTH)
# Done by somebody who does not compute hashes.
PLAIN: st.SearchStrategy[Change] = st.one_of(
    PLACES.map(logs.edit),
    PLACES.map(logs.edit_time),
    PLACES.map(logs.edit_hash),
    PLACES.map(logs.remove),
    PLACES.map(logs.remove_and_renumber),
    PLACES.map(logs.insert),
    PLACES.map(lambda at: logs.insert(at, hash=None)),
    st.builds(logs.swap, PLACES, PLACES, hashes=st.booleans()),
    st.builds(logs.copy, PLACES, PLACES),
    st.builds(logs.truncate, PLACES, fix_head=st.booleans()),
)
# Done by somebody who does.
HASHED: st.SearchStrategy[Change] = st.one_of(
    PLAIN,
    PLACES.map(logs.insert_chained),
    st.builds(logs.rewrite, PLACES, until=PLACES),
    PLACES.map(logs.rewrite),
)


@given(st.integers(0, 30), st.sets(st.integers(1, 30)))
def test_an_untouched_log_has_no_flaw(length: int, marks: set[int]) -> None:
    log = make_log(length)

    assert verify(log, [checkpoint(log, seq) for seq in sorted(marks) if seq <= length]) is None


@given(st.lists(PLAIN, min_size=1, max_size=2), st.integers(1, LENGTH))
def test_the_first_change_is_named_whatever_two_things_were_done(changes: list[Change], reached: int) -> None:
    original = make_log(LENGTH)
    changed = original
    for change in changes:
        changed = change(changed)

    finding = verify(changed, [checkpoint(original, reached)])

    first = changed.first_change(original)
    if first is None:
        assert finding is None
    elif finding is None:
        # Nobody can know what was behind the last checkpoint, once the head was made to fit.
        assert changed.head == logs.head_of(changed.rows)
        assert changed.rows == original.rows[: len(changed.rows)]
        assert reached <= len(changed.rows)
    else:
        assert finding.seq == first


@given(st.lists(HASHED, min_size=1, max_size=2), st.sets(PLACES))
def test_what_is_said_to_be_proven_was_not_changed(changes: list[Change], marks: set[int]) -> None:
    original = make_log(LENGTH)
    changed = original
    for change in changes:
        changed = change(changed)

    finding = verify(changed, [checkpoint(original, seq) for seq in sorted(marks)])

    first = changed.first_change(original)
    if first is None:
        return
    if finding is None:
        assert first > max(marks, default=0)
    else:
        assert finding.unproven <= first


@given(PLACES)
def test_a_rewritten_rest_is_found_by_any_later_checkpoint_only(at: int) -> None:
    original = make_log(LENGTH)
    changed = logs.rewrite(at)(original)

    assert verify(changed) is None
    for mark in range(1, LENGTH + 1):
        finding = verify(changed, [checkpoint(original, mark)])
        assert (finding is not None) == (mark >= at)
        assert finding is None or finding.flaw is Flaw.FORKED


MIDDLE = 4
KINDS: dict[str, tuple[Change, Flaw, int, int]] = {
    "an edited field": (logs.edit(MIDDLE), Flaw.EDITED, 4, 4),
    "an edited time": (logs.edit_time(MIDDLE), Flaw.EDITED, 4, 4),
    "an edited hash": (logs.edit_hash(MIDDLE), Flaw.EDITED, 4, 4),
    "a removed row": (logs.remove(MIDDLE), Flaw.REMOVED, 4, 4),
    "a removed row, closed up": (logs.remove_and_renumber(MIDDLE), Flaw.REMOVED, 4, 4),
    "the row before the last, closed up": (logs.remove_and_renumber(LENGTH - 1), Flaw.REMOVED, 8, 8),
    "an inserted row": (logs.insert(MIDDLE), Flaw.INSERTED, 4, 4),
    "an inserted row without a hash": (logs.insert(MIDDLE, hash=None), Flaw.INSERTED, 4, 4),
    "an inserted row that fits": (logs.insert_chained(MIDDLE), Flaw.INSERTED, 4, 4),
    "two neighbours": (logs.swap(MIDDLE, 5), Flaw.SWAPPED, 4, 5),
    "two neighbours, hashes in place": (logs.swap(MIDDLE, 5, hashes=False), Flaw.SWAPPED, 4, 5),
    "two rows apart": (logs.swap(MIDDLE, 8), Flaw.SWAPPED, 4, 8),
    "two rows apart, hashes in place": (logs.swap(MIDDLE, 8, hashes=False), Flaw.SWAPPED, 4, 8),
    "a tail": (logs.truncate(MIDDLE, fix_head=False), Flaw.TRUNCATED, 4, 9),
}


@pytest.mark.parametrize(("change", "flaw", "seq", "through"), list(KINDS.values()), ids=list(KINDS))
def test_what_was_done_has_its_name(change: Change, flaw: Flaw, seq: int, through: int) -> None:
    finding = verify(change(make_log(LENGTH)))

    assert finding is not None
    assert (finding.flaw, finding.seq, finding.through) == (flaw, seq, through)


def test_a_tail_that_is_missing_under_a_head_made_to_fit_is_known_from_a_checkpoint() -> None:
    original = make_log(LENGTH)

    finding = verify(logs.truncate(MIDDLE, fix_head=True)(original), [checkpoint(original, 2), checkpoint(original, 7)])

    assert finding is not None
    assert (finding.flaw, finding.seq, finding.through) == (Flaw.TRUNCATED, 4, 7)


def test_rows_behind_the_head_were_inserted() -> None:
    log = make_log(LENGTH)

    finding = verify(Log(log.rows, logs.head_of(log.rows[:6])))

    assert finding is not None
    assert (finding.flaw, finding.seq, finding.through) == (Flaw.INSERTED, 7, 9)


def test_a_begin_that_no_checkpoint_knows_is_a_removal() -> None:
    log = make_log(LENGTH)
    verifier = Verifier(End(4, log.rows[3].hash or b""), [checkpoint(log, 2), checkpoint(log, 6)])
    for row in log.rows[4:]:
        verifier.see(row)

    finding = verifier.end(log.head)

    assert finding is not None
    assert finding.flaw is Flaw.REMOVED


def test_a_fixed_event_has_its_fixed_leaf_and_hash() -> None:
    leaf = entry_of(fixed.EVENT).leaf
    hash_ = link(fixed.BEFORE, fixed.EVENT.seq, fixed.EVENT.at, leaf)

    assert (leaf, hash_) == (fixed.LEAF, fixed.HASH)
    assert link(hash_, fixed.EVENT.seq + 1, fixed.EVENT.at, leaf) == fixed.NEXT_HASH


def test_the_leaf_is_over_the_canonical_text_of_the_event() -> None:
    row = logs.make_row(3, 'a "quoted" ä')
    event = replace(row.event, trace_id=UUID(int=5), request_id=UUID(int=6), agent_id=UUID(int=7))
    whole = {
        "actor": event.actor,
        "agent_id": "00000000-0000-0000-0000-000000000007",
        "attempt": event.attempt,
        "data": dict(event.data),
        "kind": event.kind,
        "request_id": "00000000-0000-0000-0000-000000000006",
        "task_id": "00000000-0000-0000-0000-000000000003",
        "trace_id": "00000000-0000-0000-0000-000000000005",
    }
    of_nobody = replace(event, attempt=None, task_id=None)
    for said, written in ((event, whole), (of_nobody, {**whole, "attempt": None, "task_id": None})):
        assert entry_of(said).leaf == hashlib.sha256(rfc8785.dumps(written)).digest()


def test_an_empty_log_is_as_long_as_its_head_says() -> None:
    assert verify(Log((), BEGIN)) is None
