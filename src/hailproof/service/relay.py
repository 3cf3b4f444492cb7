"""``hailproof relay``: a small HTTP server that keeps frames for a swarm, and need not be trusted.

    PUT /objects/NAME        201 new, 200 there already, 4xx refused with the reason
    GET /objects/NAME        the frame, or 404
    GET /list/PREFIX/        names, one a line        GET /parts/PREFIX/   what stands before the next slash
    GET /health              refusals by reason, objects and bytes kept

It checks what it keeps as a node does (``exchange.gate``): only a key on its list can put anything, only under its own
name, at most twice in one place, and only so many bytes an hour. It holds no key itself, so that it can forge nothing.
It can withhold: that is all that those who use it depend on it for.
"""

import asyncio
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.gate import Gate
from hailproof.exchange.stores import FolderStore, Store
from hailproof.wire import OVERHEAD, Place, opened_head

MOST_NAMES = 100_000
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
        gate: What it lets in.
        quotas: How much of it.
    """

    def __init__(self, store: Store, gate: Gate, quotas: Quotas | None = None) -> None:
        self.store, self.gate, self.quotas = store, gate, quotas or Quotas()
        self.kept = {"objects": 0, "bytes": 0}
        self._of_key = Buckets(self.quotas.bytes_per_hour / 3600, self.quotas.bytes_per_hour)
        self._of_address = Buckets(self.quotas.requests_per_second, self.quotas.burst)
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

    def _too_many(self, request: Request) -> Response | None:
        address = request.client.host if request.client else ""
        if self._of_address.take(address):
            return None
        return PlainTextResponse("too many requests", 429, {"Retry-After": "1"})

    async def _put(self, request: Request) -> Response:
        if (refusal := self._too_many(request)) is not None:
            return refusal
        name = request.path_params["name"]
        try:
            limit = self.gate.limit(name)
            return await self._received(request, name, limit)
        except PeerError as error:
            self.gate.refuse(error, name)
            return PlainTextResponse(error.reason, 413 if error.reason == "oversized" else 403)
        except StoreError:
            return PlainTextResponse("the relay cannot keep it now", 503)
        except ClientDisconnect:
            return PlainTextResponse("gone", 400)
        except TimeoutError:
            return PlainTextResponse("too slow", 408, {"Connection": "close"})

    async def _received(self, request: Request, name: str, limit: int) -> Response:
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
                    return await self._keep(name, bytes(data))
                data += part
                if len(data) > limit:
                    raise _too_much(name)
                header = opened_head(bytes(data[:OVERHEAD]), limit - OVERHEAD, self.gate.allowed, place)
        size, sender = header.size, place.sender
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
            return await self._keep(name, bytes(data))
        finally:
            self._reading -= size
            self._uploads_of[sender] -= 1

    async def _keep(self, name: str, data: bytes) -> Response:
        """Checks and keeps a frame; what was kept before is not charged again."""
        if await run_in_threadpool(self._has, name, data):
            return PlainTextResponse("there already", 200)
        key = name.split("/")[3]
        if not self._of_key.take(key, max(len(data), self.quotas.bytes_of_object)):
            return PlainTextResponse("over the quota of its key", 429, {"Retry-After": "60"})
        try:
            await run_in_threadpool(self.gate.take, name, data, True)
        except PeerError as error:
            return PlainTextResponse(error.reason, 409 if error.reason == "equivocating" else 403)
        new = await run_in_threadpool(self.store.put, name, data)
        self.kept["objects"] += new
        self.kept["bytes"] += len(data) * new
        return PlainTextResponse("kept", 201 if new else 200)

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
            data = await run_in_threadpool(self.store.get, name, self.gate.limits.checkpoint + (1 << 20))
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
        return JSONResponse({"kept": self.kept, "refused": dict(self.gate.refused)})


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
