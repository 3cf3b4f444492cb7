"""What travels between nodes that do not trust each other: signed envelopes over one canonical encoding.

    frame = MAGIC | sender's key (32) | signature (64) | length of the header (2) | header | payload

The header names swarm, round, phase, and size and SHA-256 of the payload. The signature covers the sender's key and the
header, and by the hash the payload. :func:`opened` looks at a frame in the order of cost: size, magic, whether the
sender is known, signature, header, hash. :func:`decoded` reads a payload only afterwards. Both refuse what is not the
one encoding of what it says: unknown fields, other orders, longer forms of a number.

A frame is stored under ``SWARM/ROUND/PHASE/SENDER/SHA-256``: its name says what it is, so nobody can put anything else
in its place, and two frames of one sender in one place prove that it said two things (:func:`equivocates`).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from hailproof.errors import PeerError
from hailproof.identity import KEY_BYTES, SIGNATURE_BYTES, Identity, is_signed
from hailproof.parsing import encodable
from hailproof.records import Completion, Submission

Phase = Literal["commit", "reveal", "seal", "seen", "state", "checkpoint", "want", "join"]
PHASES: tuple[Phase, ...] = get_args(Phase)

Reason = Literal[
    "oversized", "malformed", "not on the allow-list", "forged", "wrong swarm", "wrong round", "wrong phase",
    "replayed", "duplicated", "equivocating", "late", "not as committed", "not heard",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why an envelope is refused; what is refused is counted by these."""

MAGIC = b"hailproof\x01"
HEADER_LIMIT = 512
OVERHEAD = len(MAGIC) + KEY_BYTES + SIGNATURE_BYTES + 2 + HEADER_LIMIT
"""The most bytes that a frame has beyond its payload."""
_DOMAIN = b"hailproof envelope 1\0"
_FIXED = len(MAGIC) + KEY_BYTES + SIGNATURE_BYTES + 2

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
RoundNumber = Annotated[int, Meta(ge=0, lt=2**31)]
Size = Annotated[int, Meta(ge=0, lt=2**40)]
SwarmId = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

MOST_ITEMS = 65536
MOST_TOKENS = 65536
MOST_CHARACTERS = 16 * MOST_TOKENS
MOST_WELCOME = 256


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What the signature covers.

    Attributes:
        swarm: The swarm's id, which holds the hash of its rules.
        round: The round, from 1; 0 is what was before the first.
        phase: What kind of payload it is.
        size: Bytes of the payload.
        sha256: Its hash.
    """

    swarm: SwarmId
    round: RoundNumber
    phase: Phase
    size: Size
    sha256: Digest


class Item(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One completion of a batch; round and sender are those of the envelope, so that they are said once."""

    problem_id: Annotated[str, Meta(max_length=256)]
    slot: Annotated[int, Meta(ge=0, lt=2**31)]
    token_ids: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**31)], ...], Meta(max_length=MOST_TOKENS)]
    text: Annotated[str, Meta(max_length=MOST_CHARACTERS)]
    finished: bool


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """All completions of one sender in one round: the payload of ``reveal``."""

    items: Annotated[tuple[Item, ...], Meta(max_length=MOST_ITEMS)]


class Commit(Struct, frozen=True, forbid_unknown_fields=True):
    """What binds a sender before anybody's batch is seen: size and hash of its batch, and the hash of its nonce."""

    size: Size
    sha256: Digest
    nonce_sha256: Digest


class Seal(Struct, frozen=True, forbid_unknown_fields=True):
    """The nonce, which is shown once all batches are."""

    nonce: Digest


class Entry(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """That a sender's commitment, batch and nonce were there in time."""

    sender: Key
    sha256: Digest
    nonce: Digest


class Seen(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A signed inventory of what a node saw of a round by the deadlines.

    Attributes:
        entries: Whose commitment, batch and nonce were there, by sender's key.
        welcome: Keys of strangers that the node is for: that they may try, or that their last batch was honest
            (``exchange.admission``); in order.
    """

    entries: Annotated[tuple[Entry, ...], Meta(max_length=MOST_ITEMS)]
    welcome: Annotated[tuple[Key, ...], Meta(max_length=MOST_WELCOME)] = ()


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What a node holds after a round.

    Attributes:
        decision: Hash of the set that it learned from.
        weights: Hash of its weights.
        checkpoint: Hash of all that its next round depends on: weights, optimizer, what its defenses remember.
        closed: Milliseconds since 1970 at which it closed the round; the next round's deadlines count from the median.
    """

    decision: Digest
    weights: Digest
    checkpoint: Digest
    closed: Annotated[int, Meta(ge=0, lt=2**53)]


class Want(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a checkpoint of this round or a later one."""


class Join(Struct, frozen=True, forbid_unknown_fields=True):
    """That a stranger wants to become a member."""


T = TypeVar("T")

_HEADERS = msgspec.msgpack.Decoder(Header)
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Batch, Commit, Seal, Seen, State, Want, Join)
}
_ENCODER = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A frame whose size, signature, header and hash were checked; its payload is still bytes.

    Attributes:
        sender: The sender's public key.
        header: What it signed.
        payload: What the header's hash names.
        sha256: Hash of the whole frame.
    """

    sender: bytes
    header: Header
    payload: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame belongs: swarm, round, phase and sender."""

    swarm: str
    round: int
    phase: Phase
    sender: bytes = b""

    @property
    def prefix(self) -> str:
        """The beginning of the names of all frames that belong there; without a sender, of all senders' frames."""
        named = f"{self.swarm}/{self.round:08d}/{self.phase}/"
        return f"{named}{self.sender.hex()}/" if self.sender else named

    def name(self, frame: bytes) -> str:
        """The name of a frame."""
        return self.prefix + hashlib.sha256(frame).hexdigest()

    @classmethod
    def of_name(cls, name: str) -> tuple["Place", bytes]:
        """The place that a name says, and the hash of the frame.

        Raises:
            PeerError: If it is no name of a frame.
        """
        parts = name.split("/")
        try:
            swarm, number, phase, sender, digest = parts
            place = cls(swarm, int(number), msgspec.convert(phase, Phase), bytes.fromhex(sender))
            found = place, bytes.fromhex(digest)
            if len(place.sender) != KEY_BYTES or place.prefix + found[1].hex() != name or len(found[1]) != 32:
                raise ValueError
            msgspec.convert(swarm, SwarmId)
            msgspec.convert(place.round, RoundNumber)
        except (ValueError, msgspec.ValidationError) as error:
            raise PeerError("malformed", f"'{name:.200}' is no name of an envelope.") from error
        return found


def sender_in(name: str) -> str:
    """The part of a name that says its sender, unchecked; empty if it has not the five parts of a name."""
    return name.split("/", 4)[3] if name.count("/") == 4 else ""


def encoded(payload: Struct) -> bytes:
    """The one encoding of a payload."""
    return _ENCODER.encode(payload)


def decoded(kind: type[T], data: bytes) -> T:
    """Reads a payload whose hash was checked.

    Raises:
        PeerError: If it is not the one encoding of such a payload.
    """
    return _decoded(_DECODERS[kind], data, kind.__name__.lower())


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    try:
        found = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise PeerError("malformed", f"A {what} cannot be decoded ({error!s:.200}).") from error
    if _ENCODER.encode(found) != data:
        raise PeerError("malformed", f"A {what} is not written in the one canonical way.")
    return found


def sealed(identity: Identity, place: Place, payload: bytes) -> bytes:
    """Signs a payload.

    Args:
        identity: The sender.
        place: Swarm, round and phase; its sender is not looked at.
        payload: What is sent.

    Returns:
        The frame.
    """
    header = _ENCODER.encode(
        Header(place.swarm, place.round, place.phase, len(payload), hashlib.sha256(payload).digest())
    )
    signature = identity.sign(_DOMAIN + identity.key + header)
    return b"".join((MAGIC, identity.key, signature, len(header).to_bytes(2, "big"), header, payload))


def opened(data: bytes, limit: int, allowed: Collection[bytes] | None = None, place: Place | None = None) -> Envelope:
    """Checks a frame, in the order of cost, and decodes nothing but its header.

    Args:
        data: The frame.
        limit: The most bytes that its payload may have.
        allowed: Keys of those who may send; ``None``: anybody.
        place: Where it was found; swarm, round, phase and sender must be those.

    Raises:
        PeerError: With the reason for which it is refused.
    """
    envelope = _head(data, limit, allowed)
    header = envelope.header
    if place is not None:
        _check_place(envelope, place)
    if header.size != len(envelope.payload) or header.sha256 != hashlib.sha256(envelope.payload).digest():
        raise PeerError("forged", "The payload of an envelope is not the one that its sender signed.")
    return envelope


def _head(data: bytes, limit: int, allowed: Collection[bytes] | None) -> Envelope:
    """The signed part of a frame, checked; the payload is whatever follows."""
    if len(data) > limit + OVERHEAD:
        raise PeerError("oversized", f"An envelope has {len(data)} bytes, where {limit + OVERHEAD} are allowed.")
    if len(data) < _FIXED or not data.startswith(MAGIC):
        raise PeerError("malformed", "An envelope does not begin as one.")
    begin = len(MAGIC)
    sender = data[begin : begin + KEY_BYTES]
    signature = data[begin + KEY_BYTES : begin + KEY_BYTES + SIGNATURE_BYTES]
    size = int.from_bytes(data[_FIXED - 2 : _FIXED], "big")
    header, payload = data[_FIXED : _FIXED + size], data[_FIXED + size :]
    if size > HEADER_LIMIT or len(header) < size:
        raise PeerError("malformed", "The header of an envelope is too long or cut off.")
    if len(payload) > limit:
        raise PeerError("oversized", f"A payload has {len(payload)} bytes, where {limit} are allowed.")
    if allowed is not None and sender not in allowed:
        raise PeerError("not on the allow-list", f"{sender.hex()} is not on the allow-list.")
    if not is_signed(sender, signature, _DOMAIN + sender + header):
        raise PeerError("forged", f"An envelope is not signed by {sender.hex()}, whose name it bears.")
    return Envelope(sender, _decoded(_HEADERS, header, "header"), payload, hashlib.sha256(data).digest())


def _check_place(envelope: Envelope, place: Place) -> None:
    header = envelope.header
    if header.swarm != place.swarm:
        raise PeerError("wrong swarm", f"An envelope belongs to the swarm {header.swarm}, not to {place.swarm}.")
    if header.round != place.round:
        raise PeerError("wrong round", f"An envelope belongs to round {header.round}, not to {place.round}.")
    if header.phase != place.phase:
        raise PeerError("wrong phase", f"An envelope is a {header.phase}, not a {place.phase}.")
    if place.sender and envelope.sender != place.sender:
        raise PeerError("forged", f"An envelope under the name of {place.sender.hex()} was signed by another.")


def opened_head(data: bytes, limit: int, allowed: Collection[bytes] | None, place: Place) -> Header | None:
    """Checks the head of a frame of which the rest has not come yet; ``None`` if too little of it has.

    Args:
        data: The beginning of the frame.
        limit: The most bytes that its payload may have.
        allowed: Keys of those who may send; ``None``: anybody.
        place: Where it is to be put.

    Raises:
        PeerError: With the reason for which it is refused.
    """
    size = int.from_bytes(data[_FIXED - 2 : _FIXED], "big") if len(data) >= _FIXED else HEADER_LIMIT
    if len(data) < _FIXED + min(size, HEADER_LIMIT):
        return None
    envelope = _head(data[: _FIXED + size], limit, allowed)
    _check_place(envelope, place)
    if envelope.header.size > limit:
        raise PeerError("oversized", f"A payload says to have {envelope.header.size} bytes, where {limit} are allowed.")
    return envelope.header


def head_of(frame: bytes) -> bytes:
    """A frame without its payload: all that a proof needs."""
    size = int.from_bytes(frame[_FIXED - 2 : _FIXED], "big")
    return frame[: _FIXED + size]


def equivocates(first: bytes, second: bytes) -> bytes | None:
    """Whether two frames prove that their sender said two things where it may say one.

    Anybody can check it who has the two frames, or their heads (:func:`head_of`), and nobody can make such a proof
    against a sender that did not sign both.

    Returns:
        The sender's key; ``None`` if they prove nothing.
    """
    try:
        one, other = (_head(head_of(frame), 0, None) for frame in (first, second))
    except PeerError:
        return None
    same = (one.sender, one.header.swarm, one.header.round, one.header.phase)
    place = (other.sender, other.header.swarm, other.header.round, other.header.phase)
    return one.sender if same == place and one.header != other.header else None


def batch_of(submissions: Collection[Submission]) -> Batch:
    """The batch of one sender's submissions of one round, in the order of problem and slot.

    A character that no wire takes becomes a question mark.
    """
    items = (
        Item(each.problem_id, each.slot, each.completion.token_ids, encodable(each.completion.text),
             each.completion.finished)
        for each in submissions
    )  # fmt: skip
    return Batch(tuple(sorted(items, key=lambda item: (item.problem_id, item.slot))))


def submissions_of(batch: Batch, round: int, sender: int) -> list[Submission]:
    """The submissions of a batch.

    Args:
        batch: The batch.
        round: The round of its envelope.
        sender: The index of the node that signed it.
    """
    return [
        Submission(round, sender, item.problem_id, item.slot, Completion(item.text, item.token_ids, item.finished))
        for item in batch.items
    ]
