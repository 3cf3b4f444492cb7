"""The client of ``hailproof relay``: a store behind plain HTTP."""

import time
from typing import Any, final
from urllib.parse import quote

from hailproof.errors import ConfigError, StoreError
from hailproof.exchange.stores import check_name, too_large

TIMEOUT = 20.0
"""Seconds for a request; what takes longer is tried again at the next look."""
BYTES_PER_SECOND = 16 << 10
"""Of an answer, in the mean; a slower one is given up."""
_CHARACTERS_PER_NAME = 512


@final
class RelayStore:
    """A store that a relay keeps.

    Args:
        url: ``http://host:port`` or ``https://host``.
        ca: A file of certificates to trust instead of the system's.
        timeout: Seconds in which something must come; an answer may take as long, beside what its size needs.

    Raises:
        ConfigError: If ``httpx`` is missing, or the address or the file is wrong.
    """

    def __init__(self, url: str, ca: str | None = None, timeout: float = TIMEOUT) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError(
                f"The relay {url} needs the package httpx; install it with pip install 'hailproof[swarm]'."
            ) from error
        import ssl

        self.url = url.rstrip("/")
        self._library, self._timeout = httpx, timeout
        try:
            verify: Any = ssl.create_default_context(cafile=ca) if ca else True
            self._client = httpx.Client(
                base_url=self.url, timeout=timeout, verify=verify, follow_redirects=False, trust_env=False
            )
        except (OSError, ValueError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"The relay {url} cannot be used ({error}); check its address and the file of certificates."
            ) from error

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object unless there is one of that name."""
        status, body = self._ask("PUT", f"/objects/{quote(check_name(name))}", 1000, content=data)
        if status not in (200, 201):
            raise StoreError(f"The relay {self.url} refuses {name:.200} ({status}, {body.decode(errors='replace')}).")
        return status == 201

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if there is none."""
        status, body = self._ask("GET", f"/objects/{quote(check_name(name))}", limit)
        if status == 404:
            return None
        self._require(status, name)
        return body

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order."""
        return sorted(name for name in self._lines("list", prefix, limit) if name.startswith(prefix))[:limit]

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/``, in order."""
        return sorted(set(self._lines("parts", prefix, limit)))[-limit:]

    def _lines(self, what: str, prefix: str, limit: int) -> list[str]:
        path = f"/{what}/{quote(check_name(prefix, prefix=True))}"
        status, body = self._ask("GET", path, limit * _CHARACTERS_PER_NAME, params={"limit": limit})
        self._require(status, prefix)
        return body.decode("ascii", "replace").split("\n") if body else []

    def _require(self, status: int, name: str) -> None:
        if status != 200:
            raise StoreError(f"The relay {self.url} answers {status} for {name:.200}; try later, or ask its owner.")

    def _ask(self, method: str, path: str, limit: int, **options: Any) -> tuple[int, bytes]:
        """Status and body of an answer, whose size is bounded while it is read."""
        try:
            began = time.monotonic()
            with self._client.stream(method, path, **options) as answer:
                parts, size = [], 0
                for part in answer.iter_raw():
                    size += len(part)
                    if time.monotonic() - began > self._timeout + size / BYTES_PER_SECOND:
                        raise StoreError(f"The relay {self.url} answers too slowly; check the network, or its owner.")
                    if size > limit and answer.status_code == 200:
                        raise too_large(path, limit)
                    if size <= max(limit, 1000):
                        parts.append(part)
                return answer.status_code, b"".join(parts)
        except (self._library.HTTPError, OSError) as error:
            raise StoreError(
                f"The relay {self.url} cannot be reached ({type(error).__name__}); check the address and the network."
            ) from error

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()
