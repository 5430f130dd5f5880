"""Which keys an agent believes, and how that changes."""

from pathlib import Path

import pytest

from agents.trust import (
    TRUST_FILE,
    NoTrustedKeys,
    NotTrusted,
    Trust,
    TrustUnusable,
    UnknownKey,
    open_trust,
    remember_keys,
)
from common.seal import Seal
from common.signing.keys import PrivateKey
from common.signing.statements import KeysStatement, NamedKey, sign


def statement(*keys: PrivateKey, retired: tuple[PrivateKey, ...] = ()) -> KeysStatement:
    named = tuple(NamedKey(key_id=key.key_id, key=key.public.text()) for key in keys)
    return KeysStatement(iat=0, keys=named, retired=tuple(key.key_id for key in retired))


def make_trust(folder: Path, *keys: PrivateKey) -> Trust:
    return Trust(folder / TRUST_FILE, [key.public for key in keys])


def signed(text: str, key: PrivateKey) -> Seal:
    return Seal(key_id=key.key_id, statement=text, signature=key.sign(text.encode()))


def test_an_agent_without_keys_does_not_start_and_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NoTrustedKeys, match="chiffon keys list --pem"):
        open_trust(tmp_path, None)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_file_without_a_usable_key_is_an_error(content: bytes, tmp_path: Path) -> None:
    bundle = tmp_path / "keys.pem"
    bundle.write_bytes(content)

    with pytest.raises(TrustUnusable):
        open_trust(tmp_path, bundle)


def test_only_what_a_trusted_key_signed_is_read(tmp_path: Path) -> None:
    ours, theirs = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert trust.check(signed("words", ours)) == b"words"
    with pytest.raises(UnknownKey):
        trust.check(signed("words", theirs))
    with pytest.raises(NotTrusted):
        trust.check(signed("words", theirs).model_copy(update={"key_id": ours.key_id}))
    with pytest.raises(NotTrusted):
        trust.check(signed("words", ours).model_copy(update={"statement": "other words"}))


def test_a_new_key_is_trusted_beside_the_old_one_and_survives_a_restart(tmp_path: Path) -> None:
    old, new = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, old)
    news = statement(old, new)

    assert trust.follow([sign(new, news), sign(old, news)])

    again = open_trust(tmp_path, None)
    assert set(again.key_ids) == {old.key_id, new.key_id} == set(trust.key_ids)
    assert (tmp_path / TRUST_FILE).stat().st_mode & 0o777 == 0o600


def test_a_retired_key_never_counts_again_whoever_names_it(tmp_path: Path) -> None:
    old, new = PrivateKey.new(), PrivateKey.new()
    both, bundle = statement(old, new), tmp_path / "keys.pem"
    bundle.write_bytes(old.public.pem() + new.public.pem())
    trust = make_trust(tmp_path, old, new)

    assert trust.follow([sign(new, statement(new, retired=(old,)))])

    with pytest.raises(UnknownKey):
        trust.check(signed("words", old))
    assert not trust.follow([sign(new, both)])  # recorded before, and sent again
    assert not trust.follow([sign(old, both)])
    remember_keys(tmp_path, bundle.read_bytes())
    assert open_trust(tmp_path, bundle).key_ids == trust.key_ids == [new.key_id]


def test_what_an_unknown_key_announces_is_ignored(tmp_path: Path) -> None:
    ours, thief = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)

    assert not trust.follow([sign(thief, statement(thief, retired=(ours,)))])
    assert not trust.follow([sign(thief, statement(thief)).model_copy(update={"key_id": ours.key_id})])

    assert trust.key_ids == [ours.key_id]
    assert not (tmp_path / TRUST_FILE).exists()


def test_no_key_is_taken_under_the_name_of_another_and_the_last_one_stays(tmp_path: Path) -> None:
    ours, other = PrivateKey.new(), PrivateKey.new()
    trust = make_trust(tmp_path, ours)
    misnamed = KeysStatement(iat=0, keys=(NamedKey(key_id=ours.key_id, key=other.public.text()),))

    assert not trust.follow([sign(ours, misnamed)])
    assert not trust.follow([sign(ours, statement(retired=(ours,)))])

    assert trust.check(signed("words", ours)) == b"words"


def test_keys_that_enrolment_brings_are_there_at_the_next_start(tmp_path: Path) -> None:
    one, other = PrivateKey.new(), PrivateKey.new()

    remember_keys(tmp_path, one.public.pem())
    remember_keys(tmp_path, other.public.pem())

    assert set(open_trust(tmp_path, None).key_ids) == {one.key_id, other.key_id}
