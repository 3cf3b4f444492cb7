"""Connections that end: uvicorn's HTTP with limits for clients that take a connection and do nothing with it.

Uvicorn waits for the head of a request, and for a reader, as long as the other side likes, so that whoever opens enough
connections keeps everybody out. Here a head has to come in time, a reader has to read, and one address has its share.
"""

import asyncio
from collections import Counter
from typing import ClassVar, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""For the head of a request, from its first byte or the connection's begin."""
STALL_SECONDS = 60.0
"""For a reader to take something of what is sent to it."""
LOOK_SECONDS = 5.0
"""Between two looks at a connection."""
CONNECTIONS = 256
"""At once, of everybody."""
MOST_OF_ADDRESS = CONNECTIONS // 2
"""At once, of one address."""


@final
class Patient(H11Protocol):
    """HTTP/1.1 on one connection, whose patience has an end."""

    _of_address: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begins; closes at once if the address has too many."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._of_address[self._address] += 1
        self._waits_since: float | None = self.loop.time()
        self._stalls_since: float | None = None
        self._look = self.loop.call_later(min(LOOK_SECONDS, HEAD_SECONDS), self._patience)
        if self._of_address[self._address] > MOST_OF_ADDRESS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._look.cancel()
        self._of_address[self._address] -= 1
        if not self._of_address[self._address]:
            del self._of_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; they do not buy more time for a head."""
        if self._waits and self._waits_since is None:
            self._waits_since = self.loop.time()
        super().data_received(data)
        if not self._waits:
            self._waits_since = None

    @property
    def _waits(self) -> bool:
        """Whether nothing is asked: a head has not come yet, or what comes belongs to what was answered."""
        return self.conn.their_state is h11.IDLE or (self.cycle is not None and self.cycle.response_complete)

    def on_response_complete(self) -> None:
        """Begins to wait again, which uvicorn bounds until the next byte."""
        self._waits_since = None
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Notes that the reader does not read."""
        self._stalls_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Notes that it does."""
        self._stalls_since = None
        super().resume_writing()

    def _patience(self) -> None:
        now = self.loop.time()
        waited = now - (now if self._waits_since is None else self._waits_since)
        stalled = now - (now if self._stalls_since is None else self._stalls_since)
        if waited >= HEAD_SECONDS or stalled >= STALL_SECONDS:
            self.transport.abort()
            return
        self._look = self.loop.call_later(min(LOOK_SECONDS, HEAD_SECONDS), self._patience)
