"""Envelopes: what is refused and why, what is never decoded, proofs of equivocation, and keys in files."""

import hashlib
import os
import stat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailproof import wire
from hailproof.errors import ConfigError, PeerError
from hailproof.identity import Identity, is_signed, parse_key
from hailproof.records import Completion, Submission
from hailproof.wire import (
    Batch,
    Commit,
    Entry,
    Item,
    Place,
    Seal,
    Seen,
    State,
    batch_of,
    decoded,
    encoded,
    equivocates,
    head_of,
    opened,
    sealed,
    submissions_of,
)

ALICE, BOB, EVE = (Identity.of_seed(bytes([number]) * 32) for number in (1, 2, 3))
KNOWN = {ALICE.key, BOB.key}
HERE = Place("farm-0123", 7, "seal", ALICE.key)
NONCE = bytes(range(32))
FRAME = sealed(ALICE, HERE, encoded(Seal(NONCE)))
LIMIT = 1000


def reason(data: bytes, limit: int = LIMIT, place: Place | None = HERE) -> str:
    with pytest.raises(PeerError) as caught:
        opened(data, limit, KNOWN, place)
    return caught.value.reason


def resigned(header: bytes, payload: bytes, who: Identity = ALICE) -> bytes:
    """A frame with any header, rightly signed."""
    signature = who.sign(b"hailproof envelope 1\0" + who.key + header)
    return wire.MAGIC + who.key + signature + len(header).to_bytes(2, "big") + header + payload


def test_an_envelope_comes_back_as_it_was_sent():
    envelope = opened(FRAME, LIMIT, KNOWN, HERE)
    assert envelope.sender == ALICE.key and decoded(Seal, envelope.payload) == Seal(NONCE)
    assert (envelope.header.swarm, envelope.header.round, envelope.header.phase) == ("farm-0123", 7, "seal")
    assert HERE.name(FRAME) == f"{HERE.prefix}{envelope.sha256.hex()}"
    assert Place.of_name(HERE.name(FRAME)) == (HERE, envelope.sha256)


def test_the_same_is_written_in_the_same_bytes():
    again = Identity.of_seed(bytes([1]) * 32)
    assert sealed(again, HERE, encoded(Seal(NONCE))) == FRAME


HEADER = wire.Header("farm-0123", 7, "seal", 1, hashlib.sha256(b"x").digest())
TREE = msgspec.to_builtins(HEADER, builtin_types=(bytes,))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "malformed"),
        (b"hailproof\x02" + FRAME[10:], "malformed"),
        (FRAME[:120], "malformed"),
        (FRAME[:106] + b"\xff\xff" + FRAME[108:], "malformed"),
        (FRAME + bytes(LIMIT), "oversized"),
        (FRAME + bytes(LIMIT + wire.OVERHEAD), "oversized"),
        (b"no envelope" + bytes(LIMIT + wire.OVERHEAD), "oversized"),
        (FRAME + b"more", "forged"),
        (FRAME[:-1], "forged"),
        (FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "forged"),
        (FRAME[:50] + bytes([FRAME[50] ^ 1]) + FRAME[51:], "forged"),
        (FRAME[:10] + BOB.key + FRAME[42:], "forged"),
        (sealed(EVE, HERE, encoded(Seal(NONCE))), "not on the allow-list"),
        (sealed(BOB, HERE, encoded(Seal(NONCE))), "forged"),
        (sealed(ALICE, Place("farm-9999", 7, "seal"), b"x"), "wrong swarm"),
        (sealed(ALICE, Place("farm-0123", 6, "seal"), b"x"), "wrong round"),
        (sealed(ALICE, Place("farm-0123", 7, "commit"), b"x"), "wrong phase"),
        (resigned(msgspec.msgpack.encode(TREE), b"x") + b"y", "forged"),
        (resigned(msgspec.msgpack.encode({**TREE, "size": 2}), b"x"), "forged"),
        (resigned(msgspec.msgpack.encode({**TREE, "more": 1}), b"x"), "malformed"),
        (resigned(msgspec.msgpack.encode(dict(reversed(TREE.items()))), b"x"), "malformed"),
        (resigned(msgspec.msgpack.encode({**TREE, "round": 7.0}), b"x"), "malformed"),
        (resigned(msgspec.msgpack.encode({**TREE, "round": -1}), b"x"), "malformed"),
        (resigned(msgspec.msgpack.encode({**TREE, "swarm": "../up"}), b"x"), "malformed"),
        (resigned(b"\x81" * 400, b"x"), "malformed"),
        (resigned(b"", b"x"), "malformed"),
    ],
)
def test_what_is_refused_and_why(data: bytes, expected: str):
    assert reason(data) == expected


def test_the_table_s_own_frame_is_sound():
    assert opened(resigned(msgspec.msgpack.encode(TREE), b"x"), LIMIT, KNOWN, HERE).payload == b"x"


def test_nothing_is_decoded_before_the_signature_is_checked(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object):
        raise AssertionError("decoded")

    monkeypatch.setattr(wire, "_decoded", refuse)
    for broken in (FRAME[:10] + BOB.key + FRAME[42:], sealed(EVE, HERE, b"x"), FRAME + bytes(LIMIT)):
        assert reason(broken) in ("forged", "not on the allow-list", "oversized")


@given(place=st.integers(0, len(FRAME) - 1), change=st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int):
    changed = bytearray(FRAME)
    changed[place] ^= change
    assert reason(bytes(changed)) in wire.REASONS


@given(data=st.binary(max_size=400))
def test_a_signed_payload_of_any_bytes_is_decoded_or_malformed(data: bytes):
    for kind in (Batch, Commit, Seal, Seen, State, wire.Want):
        try:
            assert encoded(decoded(kind, data)) == data
        except PeerError as error:
            assert error.reason == "malformed"


ITEM = ["p", 0, [1, 2], "text", True]


@pytest.mark.parametrize(
    "items",
    [
        [[*ITEM, "more"]],
        [["p", 0, [1, 2], "text"]],
        [["p", -1, [1], "text", True]],
        [["p", 2**31, [1], "text", True]],
        [["p", 0, [2**31], "text", True]],
        [["p", 0, [-1], "text", True]],
        [["p", 0, [1.0], "text", True]],
        [["p", 0, [1], b"text", True]],
        [["p", 0, [1], "text", 1]],
        [["p" * 257, 0, [1], "text", True]],
        [["p", 0, [1] * (wire.MOST_TOKENS + 1), "text", True]],
        [["p", 0, [1], "x" * (wire.MOST_CHARACTERS + 1), True]],
    ],
)
def test_a_batch_that_breaks_the_schema_is_refused(items: list):
    assert decoded(Batch, msgspec.msgpack.encode({"items": [ITEM]})) == Batch((Item("p", 0, (1, 2), "text", True),))
    with pytest.raises(PeerError, match="batch cannot be decoded"):
        decoded(Batch, msgspec.msgpack.encode({"items": items}))


def test_numbers_in_a_longer_form_are_refused():
    short = msgspec.msgpack.encode({"items": [["p", 1, [], "", True]]})
    long = short.replace(b"\xa1p\x01", b"\xa1p\xcd\x00\x01")
    assert decoded(Batch, short) and short != long
    with pytest.raises(PeerError, match="canonical"):
        decoded(Batch, long)


def test_deep_nesting_and_wrong_text_are_malformed():
    for data in (b"\x91" * 100_000, b"\x81\xa5items\x91\x95\xa1\xff\x00\x90\xa0\xc3"):
        with pytest.raises(PeerError, match="cannot be decoded"):
            decoded(Batch, data)


def test_submissions_come_back_from_a_batch_with_the_round_and_sender_of_the_envelope():
    sent = [
        Submission(3, 9, "b", 1, Completion("half \ud800", (5, 6), False)),
        Submission(3, 9, "a", 0, Completion("hé", (7,), True)),
    ]
    batch = decoded(Batch, encoded(batch_of(sent)))
    assert submissions_of(batch, 3, 2) == [
        Submission(3, 2, "a", 0, Completion("hé", (7,), True)),
        Submission(3, 2, "b", 1, Completion("half ?", (5, 6), False)),
    ]


OTHER = sealed(ALICE, HERE, encoded(Seal(bytes(32))))


@pytest.mark.parametrize(
    ("second", "proves"),
    [
        (OTHER, True),
        (FRAME, False),
        (sealed(BOB, HERE, encoded(Seal(bytes(32)))), False),
        (sealed(ALICE, Place("farm-0123", 8, "seal"), encoded(Seal(bytes(32)))), False),
        (sealed(ALICE, Place("farm-0123", 7, "commit"), encoded(Seal(bytes(32)))), False),
        (sealed(ALICE, Place("farm-0124", 7, "seal"), encoded(Seal(bytes(32)))), False),
        (OTHER[:50] + bytes([OTHER[50] ^ 1]) + OTHER[51:], False),
        (b"", False),
    ],
)
def test_two_envelopes_prove_equivocation_only_if_one_sender_signed_both_for_one_place(second: bytes, proves: bool):
    assert equivocates(FRAME, second) == (ALICE.key if proves else None)
    assert equivocates(head_of(second), head_of(FRAME)) == (ALICE.key if proves else None)


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "farm/7/seal/00/11", HERE.name(FRAME).upper(), HERE.name(FRAME)[:-2], f"../{HERE.name(FRAME)}",
     HERE.name(FRAME).replace("00000007", "-0000007"), HERE.name(FRAME).replace("seal", "deal")],
)  # fmt: skip
def test_names_that_are_none(name: str):
    with pytest.raises(PeerError, match="no name of an envelope"):
        Place.of_name(name)


def test_entries_and_states_have_hashes_of_full_length():
    with pytest.raises(PeerError):
        decoded(Seen, msgspec.msgpack.encode({"entries": [[ALICE.key, b"short", NONCE]]}))
    assert decoded(Seen, encoded(Seen((Entry(ALICE.key, NONCE, NONCE),)))).entries[0].sender == ALICE.key


def test_a_key_file_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "node.pem"
    public = ALICE.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert parse_key(public.read_text()) == ALICE.key == Identity.load(path).key
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        BOB.save(path)
    public.unlink()
    with pytest.raises(ConfigError, match="never overwritten"):
        BOB.save(path)
    assert path.read_bytes() == before


def test_key_files_that_are_refused(tmp_path):
    path = tmp_path / "node.pem"
    with pytest.raises(ConfigError, match=r"cannot be read.*hailproof keygen"):
        Identity.load(path)
    ALICE.save(path)
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match=r"read by others.*chmod 600"):
        Identity.load(path)
    path.write_text("nonsense")
    os.chmod(path, 0o600)
    with pytest.raises(ConfigError, match="no unencrypted private key"):
        Identity.load(path)
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(other)
    with pytest.raises(ConfigError, match="another kind"):
        Identity.load(path)


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "0" * 66])
def test_texts_that_are_no_key(text: str):
    with pytest.raises(ConfigError, match="no public key"):
        parse_key(text)


def test_secrets_and_signatures():
    assert ALICE.secret("nonce", 1) == ALICE.secret("nonce", 1) != ALICE.secret("nonce", 2)
    assert ALICE.secret("a", "b") != ALICE.secret("ab") and ALICE.secret("x") != BOB.secret("x")
    assert is_signed(ALICE.key, ALICE.sign(b"data"), b"data")
    assert not is_signed(ALICE.key, ALICE.sign(b"data"), b"date") and not is_signed(b"short", b"", b"")
    with pytest.raises(ConfigError, match="32"):
        Identity.of_seed(b"short")
