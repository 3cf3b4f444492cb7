"""A store among peers that talk directly, over zenoh: for machines of one network or VPN.

Every peer keeps what it put and what it heard. A frame is sent to all when it is put; who joins late or was cut off
asks the others for what lies under a prefix. Nothing that arrives is kept before it was checked as on a relay
(``exchange.gate``), and what is kept is bounded, so that peers cannot fill the memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, final

from hailproof.errors import ConfigError, PeerError, StoreError
from hailproof.exchange.stores import check_name, parts_of, too_large

ASK_EVERY = 1.0
"""Seconds after which peers are asked again for what lies under a prefix, beside what they send by themselves."""


@final
class ZenohStore:
    """A store among zenoh peers.

    Args:
        accept: Raises :class:`PeerError` for a name and object that are not to be kept.
        settings: Keys and JSON5 values of zenoh's configuration: ``{"listen/endpoints": '["tcp/0.0.0.0:7447"]'}``.
        capacity: The most bytes that are kept; the oldest objects go first.
        timeout: Seconds for which answers of peers are waited for.

    Raises:
        ConfigError: If ``eclipse-zenoh`` is missing, a setting is wrong, or no session opens.
    """

    def __init__(
        self,
        accept: Callable[[str, bytes], object],
        settings: Mapping[str, str] | None = None,
        capacity: int = 1 << 30,
        timeout: float = 2.0,
    ) -> None:
        try:
            import zenoh
        except ImportError as error:
            raise ConfigError(
                "The exchange zenoh needs the package eclipse-zenoh; install it with pip install 'hailproof[swarm]'."
            ) from error
        self._library = zenoh
        self._accept = accept
        self._capacity = capacity
        self._timeout = timeout
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()
        try:
            config = zenoh.Config()
            for key, value in {"mode": '"peer"', **(settings or {})}.items():
                config.insert_json5(key, value)
            self._session: Any = zenoh.open(config)
        except Exception as error:  # the library raises one kind for settings, addresses and sockets
            raise ConfigError(
                f"The exchange zenoh cannot be opened ({error!s:.200}); check its settings and addresses."
            ) from error
        self._subscriber = self._session.declare_subscriber("hailproof/**", self._hear)
        self._queryable = self._session.declare_queryable("hailproof/**", self._answer)

    def _hear(self, sample: Any) -> None:
        """Takes up what a peer sends, if it is sound; refusals are counted by ``accept``."""
        self._take(str(sample.key_expr).removeprefix("hailproof/"), bytes(sample.payload))

    def _take(self, name: str, data: bytes) -> None:
        if name in self._kept:
            return
        try:
            self._accept(name, data)
        except PeerError:
            return
        self._keep(name, data)

    def _keep(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self._kept:
                return False
            self._kept[name] = data
            self._size += len(data)
            while self._size > self._capacity and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])
        return True

    def _answer(self, query: Any) -> None:
        """Answers who asks for what lies under a prefix, or for one object."""
        asked = str(query.key_expr).removeprefix("hailproof/").removesuffix("**")
        with self._lock:
            found = [(name, data) for name, data in self._kept.items() if name.startswith(asked)]
        for name, data in found:
            query.reply(f"hailproof/{name}", data)

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object unless there is one of that name, and sends it to all peers."""
        check_name(name)
        new = self._keep(name, data)
        try:
            self._session.put(
                f"hailproof/{name}", data, congestion_control=self._library.CongestionControl.BLOCK
            )
        except self._library.ZError as error:
            raise StoreError(f"zenoh cannot send {name:.200} ({error!s:.200}); check the session.") from error
        return new

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if neither this peer nor another has it."""
        check_name(name)
        if name not in self._kept:
            self._ask(name)
        data = self._kept.get(name)
        if data is not None and len(data) > limit:
            raise too_large(name, limit)
        return data

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order."""
        return self._known(check_name(prefix, prefix=True))[:limit]

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/``, in order."""
        return parts_of(self._known(check_name(prefix, prefix=True)), prefix)[-limit:]

    def _known(self, prefix: str) -> list[str]:
        """Names under a prefix, once peers were asked lately."""
        now = monotonic()
        if now - self._asked.get(prefix, -ASK_EVERY) >= ASK_EVERY:
            if len(self._asked) > 1000:
                self._asked.clear()
            self._ask(f"{prefix}**")
            self._asked[prefix] = monotonic()
        with self._lock:
            return sorted(name for name in self._kept if name.startswith(prefix))

    def _ask(self, what: str) -> None:
        try:
            replies = self._session.get(
                f"hailproof/{what}", timeout=self._timeout, consolidation=self._library.ConsolidationMode.NONE
            )
            for reply in replies:
                if reply.ok is not None:
                    self._take(str(reply.ok.key_expr).removeprefix("hailproof/"), bytes(reply.ok.payload))
        except self._library.ZError as error:
            raise StoreError(f"zenoh cannot ask its peers ({error!s:.200}); check the session.") from error

    def close(self) -> None:
        """Closes the session."""
        self._session.close()
