"""``hailproof relay``: a small HTTP server that keeps frames for a swarm, and need not be trusted.

    PUT /objects/NAME        201 new, 200 there already, 4xx refused with the reason
    GET /objects/NAME        the frame, or 404
    GET /list/PREFIX/        names, one a line        GET /parts/PREFIX/   what stands before the next slash
    GET /health              refusals by reason, objects and bytes kept

It checks what it keeps as a node does (``exchange.gate``): it takes nothing but what belongs to the swarms that it was
started for; of them only a key on the swarm's list can put anything, only under its own name, at most twice in one
place, and only so many bytes an hour. Where strangers may join, it reads who belongs to the swarm by now as everybody
can, and all strangers together have the quota of one member, in equal shares. It holds no key itself, so that it can
forge nothing. It can withhold: that is all that those who use it depend on it for.
"""

import asyncio
import json
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hailproof.errors import PeerError, RunError, StoreError
from hailproof.exchange.admission import Roll
from hailproof.exchange.gate import Gate
from hailproof.exchange.standing import Standing
from hailproof.exchange.stores import FolderStore, Store
from hailproof.runs.files import replacing
from hailproof.wire import OVERHEAD, Place, opened_head

MOST_NAMES = 100_000
SMALL = 2048
"""Bytes of a payload that is kept at once if it came with its head: all but batches and long inventories."""
_REMEMBERED = 100_000
_BYTES = "application/octet-stream"
_FOR_EVER = {"Cache-Control": "immutable"}


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a relay lets its users do.

    Attributes:
        bytes_per_hour: That one key may put; so many at once, too.
        requests_per_second: Of one address, in the mean.
        burst: Requests of one address at once.
        uploads: Bodies that are read at the same time.
        uploads_of_key: Of them, those of one key.
        bytes_at_once: Of bodies that are read at the same time, beside one of any size: this bounds memory.
        seconds: For the signed head of a body; and for the rest, beside what its size needs.
        bytes_per_second: Of a body, in the mean; a slower one is cut off.
        bytes_of_object: That an object takes of the quota at least, since a small one takes folders and a block, too.
        joins_per_hour: Requests of strangers to join a swarm, all together.
        joins_of_address: Of them, those of one address.
    """

    bytes_per_hour: float = 2 << 30
    requests_per_second: float = 200.0
    burst: float = 2000.0
    uploads: int = 16
    uploads_of_key: int = 4
    bytes_at_once: int = 256 << 20
    seconds: float = 30.0
    bytes_per_second: float = 64 << 10
    bytes_of_object: int = 32 << 10
    joins_per_hour: float = 240.0
    joins_of_address: float = 60.0


@final
class Buckets:
    """Token buckets by name; the least recently used are forgotten first.

    Args:
        rate: Tokens that come back in a second.
        size: Tokens in a full bucket.
        clock: Seconds.
    """

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._buckets: OrderedDict[Any, tuple[float, float]] = OrderedDict()

    def take(self, name: object, count: float = 1.0) -> bool:
        """Takes tokens out of a bucket, if it has so many."""
        now = self._clock()
        left, since = self._buckets.pop(name, (self._size, now))
        left = min(self._size, left + (now - since) * self._rate)
        enough = left >= count
        self._buckets[name] = (left - count if enough else left, now)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return enough


@final
class Relay:
    """The server's application.

    Args:
        store: Where it keeps frames.
        gates: What it lets in of each swarm; a gate without a swarm lets in what belongs to any.
        quotas: How much of it.
    """

    def __init__(self, store: Store, *gates: Gate, quotas: Quotas | None = None) -> None:
        self.store, self.gates, self.quotas = store, gates, quotas or Quotas()
        self.refused: Counter[str] = Counter()
        self.kept = {"objects": 0, "bytes": 0}
        self._of_key = Buckets(self.quotas.bytes_per_hour / 3600, self.quotas.bytes_per_hour)
        self._of_address = Buckets(self.quotas.requests_per_second, self.quotas.burst)
        self._joins = Buckets(self.quotas.joins_per_hour / 3600, self.quotas.joins_per_hour)
        self._joins_of = Buckets(self.quotas.joins_of_address / 3600, self.quotas.joins_of_address)
        self._uploads = asyncio.Semaphore(self.quotas.uploads)
        self._reading = 0
        self._uploads_of: Counter[bytes] = Counter()
        self.app = Starlette(
            routes=[
                Route("/objects/{name:path}", self._put, methods=["PUT"]),
                Route("/objects/{name:path}", self._get, methods=["GET"]),
                Route("/list/{prefix:path}", self._list, methods=["GET"]),
                Route("/parts/{prefix:path}", self._list, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
            ]
        )

    @property
    def _largest(self) -> int:
        """The most bytes that an object has."""
        return max(gate.limits.checkpoint for gate in self.gates) + OVERHEAD

    def _too_many(self, request: Request) -> Response | None:
        address = request.client.host if request.client else ""
        if self._of_address.take(address):
            return None
        return PlainTextResponse("too many requests", 429, {"Retry-After": "1"})

    async def _put(self, request: Request) -> Response:
        if (refusal := self._too_many(request)) is not None:
            return refusal
        name = request.path_params["name"]
        gate = self._gate_of(name)
        if gate is None:
            self.refused["wrong swarm"] += 1
            return PlainTextResponse("wrong swarm", 403)
        try:
            limit = gate.limit(name)
            return await self._received(request, gate, name, limit)
        except PeerError as error:
            gate.refuse(error, name)
            return PlainTextResponse(error.reason, 413 if error.reason == "oversized" else 403)
        except StoreError:
            return PlainTextResponse("the relay cannot keep it now", 503)
        except ClientDisconnect:
            return PlainTextResponse("gone", 400)
        except TimeoutError:
            return PlainTextResponse("too slow", 408, {"Connection": "close"})

    def _gate_of(self, name: str) -> Gate | None:
        """The gate of the swarm that a name begins with; ``None`` if this relay does not serve it."""
        swarm = name.partition("/")[0]
        return next((gate for gate in self.gates if gate.swarm in (swarm, None)), None)

    async def _received(self, request: Request, gate: Gate, name: str, limit: int) -> Response:
        """Reads a body and keeps it; until the signature of its head is checked, nothing is reserved for it.

        Raises:
            PeerError: If it is refused.
            TimeoutError: If it comes too slowly.
        """
        place, _ = Place.of_name(name)
        stream, data, header = request.stream(), bytearray(), None
        async with asyncio.timeout(self.quotas.seconds):
            while header is None:
                part = await anext(stream, None)
                if part is None:
                    return await self._keep(request, gate, name, bytes(data))
                data += part
                if len(data) > limit:
                    raise _too_much(name)
                header = opened_head(bytes(data[:OVERHEAD]), limit - OVERHEAD, gate.signers(place), place)
        whole = request.headers.get("content-length") == str(len(data)) and len(data) <= header.size + OVERHEAD
        if whole and header.size <= SMALL:
            return await self._keep(request, gate, name, bytes(data))  # nobody waits for the slow bodies of others
        member = gate.allowed is None or place.sender in gate.allowed
        size, sender = header.size, place.sender if member else b"strangers"
        if (
            self._reading and self._reading + size > self.quotas.bytes_at_once
        ) or self._uploads_of[sender] >= self.quotas.uploads_of_key:
            return PlainTextResponse("busy", 503, {"Retry-After": "1"})
        self._reading += size
        self._uploads_of[sender] += 1
        try:
            async with self._uploads, asyncio.timeout(self.quotas.seconds + size / self.quotas.bytes_per_second):
                async for part in stream:
                    data += part
                    if len(data) > size + OVERHEAD:
                        raise _too_much(name)
            if len(data) > size + OVERHEAD:
                raise _too_much(name)
            return await self._keep(request, gate, name, bytes(data))
        finally:
            self._reading -= size
            self._uploads_of[sender] -= 1

    async def _keep(self, request: Request, gate: Gate, name: str, data: bytes) -> Response:
        """Checks and keeps a frame; what was kept before is not charged again."""
        if await run_in_threadpool(self._has, name, data):
            return PlainTextResponse("there already", 200)
        try:
            await run_in_threadpool(gate.take, name, data, True)
        except PeerError as error:
            return PlainTextResponse(error.reason, 409 if error.reason == "equivocating" else 403)
        if not self._may_keep(request, gate, name, len(data)):  # not before: what another sent is not on its account
            return PlainTextResponse("over the quota of its key", 429, {"Retry-After": "60"})
        new = await run_in_threadpool(self.store.put, name, data)
        self.kept["objects"] += new
        self.kept["bytes"] += len(data) * new
        return PlainTextResponse("kept", 201 if new else 200)

    def _may_keep(self, request: Request, gate: Gate, name: str, size: int) -> bool:
        """Takes a frame off the quota of its key; strangers on trial have equal shares of one quota."""
        swarm, _, phase, key, _ = name.split("/")
        charged = max(size, self.quotas.bytes_of_object)
        if gate.allowed is None or bytes.fromhex(key) in gate.allowed:
            return self._of_key.take(key, charged)
        if phase == "join":
            address = request.client.host if request.client else ""
            return self._joins_of.take(address) and self._joins.take(swarm)
        return self._of_key.take(key, charged * max(gate.trials, 1)) and self._of_key.take(swarm, charged)

    def _has(self, name: str, data: bytes) -> bool:
        try:
            return self.store.get(name, len(data)) == data
        except PeerError:
            return False

    async def _get(self, request: Request) -> Response:
        if (refusal := self._too_many(request)) is not None:
            return refusal
        name = request.path_params["name"]
        if isinstance(self.store, FolderStore):  # in pieces: many readers of a checkpoint take no memory
            path = await run_in_threadpool(self.store.file, name)
            if path is not None:
                return FileResponse(path, media_type=_BYTES, headers=_FOR_EVER)
            return PlainTextResponse("there is no such object", 404)
        try:
            data = await run_in_threadpool(self.store.get, name, self._largest)
        except (PeerError, StoreError):
            data = None
        if data is None:
            return PlainTextResponse("there is no such object", 404)
        return Response(data, media_type=_BYTES, headers=_FOR_EVER)

    async def _list(self, request: Request) -> Response:
        if (refusal := self._too_many(request)) is not None:
            return refusal
        asked = request.query_params.get("limit", "1000")
        limit = min(int(asked), MOST_NAMES) if asked.isdecimal() and len(asked) < 10 else 1000
        find = self.store.parts if request.url.path.startswith("/parts/") else self.store.names
        try:
            names = await run_in_threadpool(find, request.path_params["prefix"], max(limit, 1))
        except StoreError:
            return PlainTextResponse("no such prefix", 400)
        return PlainTextResponse("\n".join(names))

    async def _health(self, request: Request) -> Response:
        refused = sum((gate.refused for gate in self.gates), self.refused.copy())
        return JSONResponse({"kept": self.kept, "refused": dict(refused)})


def _too_much(name: str) -> PeerError:
    return PeerError("oversized", f"{name:.200} is sent with more bytes than are allowed.")


@contextmanager
def pruning(store: FolderStore, seconds: float, every: float = 600.0) -> Iterator[None]:
    """Removes what has been kept for so many seconds, now and then, from a thread of its own."""
    ended = threading.Event()

    def work() -> None:
        while True:
            store.prune(seconds)
            if ended.wait(every):
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def keeping_up(standings: Mapping[Path, Standing], every: float = 1.0) -> Iterator[None]:
    """Reads now and then who belongs to some swarms, from a thread of its own.

    Args:
        standings: By the file in which that is kept, so that it outlives the rounds that are removed.
        every: Seconds between two looks.
    """
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every):
            for path, standing in standings.items():
                before = standing.rolls.latest
                standing.latest()
                if standing.rolls.latest != before:
                    save_roll(path, standing.rolls.latest)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def save_roll(path: Path, roll: Roll) -> None:
    """Keeps who belongs to a swarm; if that fails it is tried again after the next round."""
    with suppress(OSError, RunError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(roll.plain()), encoding="utf-8")


def load_roll(path: Path, founders: Sequence[bytes]) -> Roll | None:
    """Who belonged to a swarm when that was kept last; ``None`` if it never was.

    Raises:
        RunError: If the file is damaged or another swarm's.
    """
    if not path.is_file():
        return None
    try:
        roll = Roll.of_plain(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, RunError) as error:
        raise RunError(
            f"{path} is damaged ({error!s:.200}); move it away, and the relay reads the rounds anew."
        ) from error
    if roll.members[: len(founders)] != tuple(founders):
        raise RunError(f"{path} is that of a swarm with other members; move it away.")
    return roll
