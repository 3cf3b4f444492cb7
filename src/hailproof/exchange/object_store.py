"""Buckets: S3, Google, Azure and whatever else ``obstore`` opens."""

from collections.abc import Mapping
from typing import Any, final

from hailproof.errors import ConfigError, StoreError
from hailproof.exchange.stores import check_name, parts_of, too_large

TIMEOUT = "20s"
"""Of a request; what takes longer is tried again at the next look."""


@final
class ObjectStore:
    """A store in a bucket.

    Put once is asked for by a conditional request. Where a store knows none, an object is simply written: its name
    holds its hash, so that it can be replaced by nothing that a reader would take.

    Args:
        url: As ``obstore`` takes it: ``s3://bucket/path``, ``gs://…``, ``az://…``, ``memory:///``.
        options: Further options of that kind of store, such as ``endpoint`` and ``region``; what is secret is better
            left to the environment, where ``obstore`` looks for it.

    Raises:
        ConfigError: If ``obstore`` is missing, or the address or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigError(
                f"The exchange {url} needs the package obstore; install it with pip install 'hailproof[swarm]'."
            ) from error
        self.url = url
        self._library = obstore
        given = dict(options or {})
        client = {"timeout": TIMEOUT, **given.pop("client_options", {})}
        local = url.startswith(("memory:", "file:"))
        retries: Any = {"max_retries": 1}
        try:
            self._store: Any = (
                from_url(url) if local else from_url(url, client_options=client, retry_config=retries, **given)  # type: ignore
            )
        except Exception as error:  # the library raises kinds of its own for addresses and for options
            raise ConfigError(
                f"The exchange {url} cannot be opened ({error!s:.200}); check the address and its options."
            ) from error
        self._conditional = True

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object unless there is one of that name."""
        check_name(name)
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        try:
            if self._conditional:
                try:
                    self._library.put(self._store, name, data, mode="create", use_multipart=False)
                    return True
                except (NotSupportedError, NotImplementedError):
                    self._conditional = False
            self._library.put(self._store, name, data, use_multipart=False)
        except AlreadyExistsError:
            return False
        except Exception as error:
            raise self._failed("written", name, error) from error
        return True

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if there is none."""
        check_name(name)
        try:
            result = self._library.get(self._store, name)
            if result.meta["size"] > limit:
                raise too_large(name, limit)
            parts, size = [], 0
            for part in result.stream(min_chunk_size=1 << 20):
                size += len(part)
                if size > limit:
                    raise too_large(name, limit)
                parts.append(bytes(part))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, self._library.exceptions.BaseError) as error:
            raise self._failed("read", name, error) from error
        return b"".join(parts)

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order."""
        check_name(prefix, prefix=True)
        found: list[str] = []
        try:
            for chunk in self._library.list(self._store, prefix, chunk_size=min(limit, 1000)):
                found += [meta["path"] for meta in chunk]
                if len(found) >= limit:
                    break
        except FileNotFoundError:
            return []
        except (OSError, ValueError, self._library.exceptions.BaseError) as error:
            raise self._failed("listed", prefix, error) from error
        return sorted(found)[:limit]

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/``, in order."""
        check_name(prefix, prefix=True)
        try:
            found = self._library.list_with_delimiter(self._store, prefix)["common_prefixes"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, self._library.exceptions.BaseError) as error:
            raise self._failed("listed", prefix, error) from error
        return parts_of((f"{name.removesuffix('/')}/" for name in found), prefix)[-limit:]

    def _failed(self, verb: str, name: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.url}: {name:.200} cannot be {verb} ({type(error).__name__}: {str(error).splitlines()[0]:.200}); "
            "check that the store can be reached, and the rights there."
        )

    def close(self) -> None:
        """Lets go of connections, which the library does by itself."""
