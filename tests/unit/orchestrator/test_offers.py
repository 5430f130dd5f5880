"""Which work is published to a pool, placed on some of its agents, or set aside."""

from collections.abc import Sequence

import pytest

from orchestrator.outbox.offers import ANY, NOTHING, Offer, Offers

ONE, TWO, BOTH = Offer.of(["x"]), Offer.of(["y"]), Offer.of(["x", "y"])


@pytest.mark.parametrize(("offer", "takes"), [(ONE, True), (TWO, False), (BOTH, True), (ANY, True), (NOTHING, False)])
def test_an_agent_takes_what_it_names_and_one_that_names_nothing_anything(offer: Offer, *, takes: bool) -> None:
    assert Offer.of([]) == ANY
    assert offer.takes("x") is takes


@pytest.mark.parametrize(
    ("agents", "published", "placed"),
    [
        ([], "xyz", ""),
        ([ONE], "x", ""),
        ([ONE, BOTH], "x", "y"),
        ([ONE, TWO], "", "xy"),
        ([ONE, ANY], "x", "yz"),
        ([ANY, ANY], "xyz", ""),
        ([NOTHING], "", ""),
        ([NOTHING, ONE], "", "x"),
        ([NOTHING, ANY], "", "xyz"),
    ],
    ids=["nobody", "one", "one-both", "one-two", "one-any", "any", "nothing", "nothing-one", "nothing-any"],
)
def test_only_what_all_agents_of_a_pool_take_is_published_and_what_some_take_is_placed(
    agents: Sequence[Offer], published: str, placed: str
) -> None:
    offers = Offers.of(("infra", offer) for offer in agents)

    assert [one for one in "xyz" if offers.is_for_all("infra", one)] == list(published)
    assert [one for one in "xyz" if _is_published(offers, one)] == list(published)
    assert [one for one in "xyz" if _is_placed(offers, one)] == list(placed)
    assert offers.is_for_all("elsewhere", "x")


def _is_published(offers: Offers, work_type: str) -> bool:
    """Return what the statement that takes tickets decides."""
    return "infra" not in offers.choosy() or ("infra", work_type) in offers.for_all()


def _is_placed(offers: Offers, work_type: str) -> bool:
    """Return what the statement that finds lines to place decides."""
    line = ("infra", work_type)
    return line not in offers.for_all() and ("infra" in offers.with_any() or line in offers.for_one())
