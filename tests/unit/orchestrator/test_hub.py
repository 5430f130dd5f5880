"""What waits for one reader of events is bounded, in number and in size."""

import pytest

from orchestrator.live import hub
from orchestrator.live.hub import Filter, Frame, Subscription


def _frame(seq: int, text: str = "x") -> Frame:
    return Frame(seq, "task.output", None, None, None, text)


async def test_a_reader_may_have_so_many_events_waiting_and_falls_behind_with_one_more() -> None:
    reader = Subscription(Filter(), 0)
    for seq in range(1, hub.BACKLOG + 1):
        reader.offer(_frame(seq))
    assert not reader.fell_behind.is_set()

    reader.offer(_frame(hub.BACKLOG + 1))

    assert reader.fell_behind.is_set()
    assert await reader.next(10) == []


@pytest.mark.parametrize(("missing", "fell_behind"), [(1, False), (0, True)])
def test_a_reader_may_have_so_much_text_waiting_and_then_falls_behind(missing: int, fell_behind: bool) -> None:
    reader = Subscription(Filter(), 0)
    reader.offer(_frame(1, "x" * (hub.BACKLOG_SIZE - missing)))

    reader.offer(_frame(2))

    assert reader.fell_behind.is_set() is fell_behind
