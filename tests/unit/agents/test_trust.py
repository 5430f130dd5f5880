"""Which keys an agent believes, and how that changes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.gate.trust import TRUST_FILE, NoTrustedKeys, Trust, TrustUnusable, open_trust, remember_keys
from common.signing.claims import KeyClaims, NamedKey
from common.signing.jws import NotTrusted, Purpose, UnknownKey, sign
from common.signing.keys import PrivateKey
from tests.hand_made_jws import compact, header_of

NOW, SKEW, HOUR = datetime(2026, 11, 25, 10, 0, tzinfo=UTC), timedelta(minutes=5), timedelta(hours=1)


def news(*keys: PrivateKey, retired: tuple[PrivateKey, ...] = (), issued: datetime = NOW) -> KeyClaims:
    return KeyClaims(
        iat=int(issued.timestamp()),
        exp=int((issued + HOUR).timestamp()),
        keys=tuple(NamedKey.of(key.public) for key in keys),
        retired=tuple(key.key_id for key in retired),
    )


def signed(claims: KeyClaims | str, key: PrivateKey, purpose: Purpose = Purpose.KEYS) -> str:
    return sign(key, purpose, claims if isinstance(claims, str) else claims.model_dump_json())


def make_trust(folder: Path, *keys: PrivateKey) -> Trust:
    return Trust(folder / TRUST_FILE, [key.public for key in keys])


def follow(trust: Trust, *signatures: str, now: datetime = NOW) -> bool:
    return trust.follow(signatures, now=now, skew=SKEW)


def test_an_agent_without_keys_does_not_start_and_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NoTrustedKeys, match="chiffon keys list --pem"):
        open_trust(tmp_path, None)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_file_without_a_usable_key_is_an_error(content: bytes, tmp_path: Path) -> None:
    bundle = tmp_path / "keys.pem"
    bundle.write_bytes(content)

    with pytest.raises(TrustUnusable):
        open_trust(tmp_path, bundle)


def test_only_what_a_trusted_key_signed_for_the_purpose_is_read(tmp_path: Path) -> None:
    ours, theirs = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert trust.check(signed("words", ours), Purpose.KEYS) == (ours.key_id, b"words")
    with pytest.raises(UnknownKey):
        trust.check(signed("words", theirs), Purpose.KEYS)
    with pytest.raises(NotTrusted, match="typ"):
        trust.check(signed("words", ours), Purpose.GRANT)


def test_a_new_key_is_trusted_beside_the_old_one_and_survives_a_restart(tmp_path: Path) -> None:
    old, new = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, old)
    both = news(old, new)

    assert follow(trust, signed(both, new), signed(both, old))

    again = open_trust(tmp_path, None)
    assert set(again.key_ids) == {old.key_id, new.key_id} == set(trust.key_ids)
    assert (tmp_path / TRUST_FILE).stat().st_mode & 0o777 == 0o600


def test_a_retired_key_never_counts_again_whoever_names_it(tmp_path: Path) -> None:
    old, new = PrivateKey.new(), PrivateKey.new()
    both, bundle = news(old, new), tmp_path / "keys.pem"
    bundle.write_bytes(old.public.pem() + new.public.pem())
    trust = make_trust(tmp_path, old, new)

    assert follow(trust, signed(news(new, retired=(old,)), new))

    with pytest.raises(UnknownKey):
        trust.check(signed("words", old), Purpose.KEYS)
    assert not follow(trust, signed(both, new))  # recorded before, and sent again
    assert not follow(trust, signed(both, old))
    remember_keys(tmp_path, bundle.read_bytes())
    assert open_trust(tmp_path, bundle).key_ids == trust.key_ids == [new.key_id]


def test_what_an_unknown_key_announces_is_ignored(tmp_path: Path) -> None:
    ours, thief = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert not follow(trust, signed(news(thief, retired=(ours,)), thief))

    assert trust.key_ids == [ours.key_id]
    assert not (tmp_path / TRUST_FILE).exists()


@pytest.mark.parametrize("age", [HOUR + SKEW + timedelta(seconds=2), -SKEW - timedelta(seconds=2)], ids=str)
def test_news_that_are_out_of_date_are_ignored(age: timedelta, tmp_path: Path) -> None:
    ours, other = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)
    announced = signed(news(ours, other), ours)

    assert not follow(trust, announced, now=NOW + age)
    assert trust.key_ids == [ours.key_id]
    assert follow(trust, announced, now=NOW)


@pytest.mark.parametrize("purpose", [Purpose.GRANT, Purpose.CHECKPOINT])
def test_a_signature_for_another_purpose_announces_nothing(purpose: Purpose, tmp_path: Path) -> None:
    ours, other = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert not follow(trust, signed(news(ours, other), ours, purpose))
    assert trust.key_ids == [ours.key_id]


def test_news_for_another_audience_are_ignored(tmp_path: Path) -> None:
    ours, other = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)
    claims = news(ours, other).model_dump_json()

    assert not follow(trust, signed(claims.replace("chiffon-agents", "chiffon-auditors"), ours))
    assert trust.key_ids == [ours.key_id]


@pytest.mark.parametrize("name", ["ours", "nobody's"])
def test_a_key_under_a_name_that_is_not_its_own_is_not_taken_nor_what_comes_with_it(name: str, tmp_path: Path) -> None:
    ours, other, new = PrivateKey.new(), PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)
    kid = ours.key_id if name == "ours" else "0" * 32
    misnamed = NamedKey.of(other.public).model_copy(update={"kid": kid})
    claims = news().model_copy(update={"keys": (NamedKey.of(new.public), misnamed)})

    assert not follow(trust, signed(claims, ours))

    assert trust.check(signed("words", ours), Purpose.KEYS).claims == b"words"
    forged = compact({**header_of(signed("words", ours)), "kid": kid}, b"words", other.key.sign)
    for words in (forged, signed("words", new)):
        with pytest.raises(NotTrusted):
            trust.check(words, Purpose.KEYS)


def test_the_last_key_stays_whoever_retires_it(tmp_path: Path) -> None:
    ours = PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert not follow(trust, signed(news(retired=(ours,)), ours))

    assert trust.check(signed("words", ours), Purpose.KEYS).claims == b"words"


def test_keys_that_cannot_be_kept_on_disk_are_not_believed(tmp_path: Path) -> None:
    ours, new = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path / "not there", ours)

    with pytest.raises(FileNotFoundError):
        follow(trust, signed(news(ours, new), ours))

    assert trust.key_ids == [ours.key_id]


def test_keys_that_enrolment_brings_are_there_at_the_next_start(tmp_path: Path) -> None:
    one, other = PrivateKey.new(), PrivateKey.new()

    remember_keys(tmp_path, one.public.pem())
    remember_keys(tmp_path, other.public.pem())

    assert set(open_trust(tmp_path, None).key_ids) == {one.key_id, other.key_id}
