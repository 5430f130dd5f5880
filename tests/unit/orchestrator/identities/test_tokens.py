"""What a token looks like, and that a mistyped one is told from a right one without asking anybody."""

import asyncio
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.rest.identities import TokenPurpose
from orchestrator.identities.authenticator import Authenticator, Limits
from orchestrator.identities.model import Unauthenticated
from orchestrator.identities.tokens import ALPHABET, LENGTH, PREFIXES, digest_of, new_token, purpose_of


@pytest.mark.parametrize("purpose", TokenPurpose)
def test_a_token_says_what_it_is_for_and_no_two_are_alike(purpose: TokenPurpose) -> None:
    made = {new_token(purpose) for _ in range(200)}

    assert len(made) == 200
    for token in made:
        assert len(token) == LENGTH
        assert token.startswith(PREFIXES[purpose])
        assert purpose_of(token) is purpose


@pytest.mark.parametrize("purpose", TokenPurpose)
def test_one_wrong_character_is_noticed(purpose: TokenPurpose) -> None:
    token = new_token(purpose)
    wrong = [
        token[:place] + other + token[place + 1 :]
        for place in range(LENGTH)
        for other in ALPHABET + "_-! "
        if other != token[place]
    ]

    assert [one for one in wrong if purpose_of(one) is not None] == []


@given(st.text(max_size=80))
def test_what_is_no_token_is_none(text: str) -> None:
    assert purpose_of(text) is None
    assert purpose_of(new_token(TokenPurpose.API) + text[:1] if text else "") is None


def test_the_digest_does_not_hold_the_token() -> None:
    token = new_token(TokenPurpose.API)

    assert len(digest_of(token)) == 32
    assert token.encode()[4:20] not in digest_of(token)


async def test_a_mistyped_token_is_refused_without_a_look_into_the_database() -> None:
    pool = Mock()
    door = Authenticator(pool, Limits(requests_per_token=100, failures_per_address=100))
    token = new_token(TokenPurpose.API)

    for wrong in (token[:-1], token[:-1] + "!", token.swapcase(), "", "chf_", new_token(TokenPurpose.ENROLMENT)):
        with pytest.raises(Unauthenticated):
            async with asyncio.timeout(5):  # a look-up would wait for ever: nobody works here
                await door.caller(wrong, address="10.0.0.1")

    pool.acquire.assert_not_called()


def test_a_token_has_256_random_bits() -> None:
    def number(token: str) -> int:
        value = 0
        for character in token[4:47]:
            value = value * len(ALPHABET) + ALPHABET.index(character)
        return value

    drawn = [number(new_token(TokenPurpose.API)) for _ in range(200)]

    # Each bit is set in about half of them; that one is the same in all has a chance of 2^-190.
    for bit in range(256):
        assert len({value >> bit & 1 for value in drawn}) == 2, bit
    assert max(drawn) < 2**256
