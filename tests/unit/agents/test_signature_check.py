"""A signature counts for the claim of this process, and only as long as its key is trusted."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID

from agents.gate.signature_check import SignatureCheck
from agents.gate.trust import TRUST_FILE, Trust
from common.signing.claims import KeyClaims, NamedKey, SignedTask, sign_grant
from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey
from tests.factories import make_grant
from tests.fakes.clock import FakeClock

AGENT, SKEW, LEASE = UUID(int=7), timedelta(minutes=5), timedelta(minutes=1)


def test_a_signature_that_was_checked_before_ends_with_the_trust_in_its_key(tmp_path: Path) -> None:
    old, new, clock = PrivateKey.new(), PrivateKey.new(), FakeClock()
    trust = Trust(tmp_path / TRUST_FILE, [old.public, new.public])
    check = SignatureCheck(trust, AGENT, clock, skew=SKEW, claim_of=lambda grant: grant.claim_id)
    first, second = make_grant(), make_grant()
    tasks = [SignedTask.of(grant) for grant in (first, second)]
    signature = sign_grant(old, AGENT, tasks, now=clock.now(), valid=LEASE)
    assert check.refusal(first, signature, None) is None

    seconds = int(clock.now().timestamp())
    news = KeyClaims(iat=seconds, exp=seconds + 60, keys=(NamedKey.of(new.public),), retired=(old.key_id,))
    assert trust.follow([sign(new, Purpose.KEYS, news.model_dump_json())], now=clock.now(), skew=SKEW)

    assert "which is not trusted here" in str(check.refusal(second, signature, None))


def test_a_grant_of_another_claim_than_that_of_the_agent_is_not_run(tmp_path: Path) -> None:
    key, clock, ours = PrivateKey.new(), FakeClock(), UUID(int=8)
    trust = Trust(tmp_path / TRUST_FILE, [key.public])
    check = SignatureCheck(trust, AGENT, clock, skew=SKEW, claim_of=lambda _: ours)
    own, other = make_grant(claim_id=ours), make_grant(claim_id=UUID(int=9))
    tasks = [SignedTask.of(grant) for grant in (own, other)]
    signature = sign_grant(key, AGENT, tasks, now=clock.now(), valid=LEASE)

    assert check.refusal(own, signature, None) is None
    assert "another claim" in str(check.refusal(other, signature, None))
