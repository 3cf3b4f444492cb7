"""Where frames lie: one small interface over anything that keeps objects under names.

An object is put once and never changed. Names hold the hash of what they name (``wire.Place``), so a store is not
trusted: it can withhold an object or show it late, and nothing else.
"""

import os
import re
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, final

from hailproof.errors import ConfigError, PeerError, StoreError

_REMEMBERED = 10_000
"""Folders that a store remembers to have made durable."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Store(Protocol):
    """Keeps objects under names; safe to use from several threads."""

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object, durably, unless there is one of that name.

        Returns:
            Whether it was new.

        Raises:
            StoreError: If the store cannot be reached or refuses.
        """
        ...

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if there is none.

        Args:
            name: Its name.
            limit: The most bytes that are read.

        Raises:
            PeerError: If it has more, with the reason ``oversized``.
            StoreError: If the store cannot be reached.
        """
        ...

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order.

        Args:
            prefix: Ends in ``/``.
            limit: The most names that are taken; if there are more, it is open which.

        Raises:
            StoreError: If the store cannot be reached.
        """
        ...

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/`` in the names that begin with it, in order.

        Args:
            prefix: Ends in ``/``.
            limit: The most that are given; if there are more, the last ones.

        Raises:
            StoreError: If the store cannot be reached.
        """
        ...

    def close(self) -> None:
        """Lets go of connections."""
        ...


def check_name(name: str, prefix: bool = False) -> str:
    """Makes sure that a name is a path of plain parts.

    Raises:
        StoreError: If it is not.
    """
    parts = (name.removesuffix("/") if prefix else name).split("/")
    if not all(_PART.fullmatch(part) for part in parts) or (prefix and not name.endswith("/")):
        raise StoreError(f"'{name:.200}' is no name of an object; use letters, digits and . _ - between slashes.")
    return name


def parts_of(names: Iterable[str], prefix: str) -> list[str]:
    """What stands between a prefix and the next ``/`` in some names, in order."""
    return sorted({name[len(prefix) :].partition("/")[0] for name in names if name.startswith(prefix)})


def too_large(name: str, limit: int) -> PeerError:
    """The refusal of an object of more bytes than allowed."""
    return PeerError("oversized", f"The object {name:.300} has more than the {limit} bytes that are allowed.")


@final
class MemoryStore:
    """A store in this process, for nodes that live in one process, and for tests."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object unless there is one of that name."""
        check_name(name)
        with self._lock:
            before = len(self._objects)
            self._objects.setdefault(name, bytes(data))
            return len(self._objects) > before

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if there is none."""
        data = self._objects.get(check_name(name))
        if data is not None and len(data) > limit:
            raise too_large(name, limit)
        return data

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order."""
        check_name(prefix, prefix=True)
        with self._lock:
            return sorted(name for name in self._objects if name.startswith(prefix))[:limit]

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/``, in order."""
        return parts_of(self.names(prefix, len(self._objects)), prefix)[-limit:]

    def close(self) -> None:
        """Has nothing to let go of."""


@final
class FolderStore:
    """A store in a folder, which processes of one machine or a shared disk have in common.

    An object is written beside its place, made durable, and linked into it, so that it is whole or not there. Links and
    devices that others put into the folder are not followed.

    Args:
        root: The folder; it is made if there is none.

    Raises:
        ConfigError: If it cannot be made or written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[Path] = set()
        try:
            (root / ".new").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {root} cannot be used for exchange ({error.strerror}); choose one that can be written to."
            ) from error

    def put(self, name: str, data: bytes) -> bool:
        """Keeps an object, durably, unless there is one of that name."""
        target = self.root / check_name(name)
        temporary = self.root / ".new" / f"{os.getpid()}-{threading.get_ident()}-{os.urandom(6).hex()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)
            self._sync(target.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written ({error.strerror}); check room and rights of the exchange's folder."
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def _sync(self, folder: Path) -> None:
        """Makes the names in a folder durable, and the folders above it that this process has not yet seen."""
        while True:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if folder == self.root or folder in self._made:
                return
            if len(self._made) >= _REMEMBERED:  # others name the folders
                self._made.clear()
            self._made.add(folder)
            folder = folder.parent

    def get(self, name: str, limit: int) -> bytes | None:
        """An object; ``None`` if there is none."""
        try:
            descriptor = os.open(self.root / check_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = file.read(limit + 1)
        if len(data) > limit:
            raise too_large(name, limit)
        return data

    def file(self, name: str) -> Path | None:
        """Where an object lies; ``None`` if there is none."""
        try:
            path = self.root / check_name(name)
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except (OSError, StoreError):
            return None

    def names(self, prefix: str, limit: int) -> list[str]:
        """Names that begin with a prefix, in order."""
        found: list[str] = []
        open_folders = [check_name(prefix, prefix=True)]
        while open_folders and len(found) < limit:
            folder = open_folders.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if not _PART.fullmatch(entry.name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            open_folders.append(f"{folder}{entry.name}/")
                        elif entry.is_file(follow_symlinks=False):
                            found.append(folder + entry.name)
                        if len(found) >= limit or len(open_folders) > limit:
                            break
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(
                    f"{self.root / folder} cannot be read ({error.strerror}); check the exchange's folder."
                ) from error
        return sorted(found)

    def prune(self, seconds: float) -> int:
        """Removes what has been kept for longer than so many seconds; returns how many objects that were."""
        oldest, removed = time.time() - seconds, 0
        for folder, inner, files in os.walk(self.root, topdown=False):
            for name in files:
                path = Path(folder) / name
                with suppress(OSError):
                    if path.lstat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
            if not inner and not files and Path(folder) not in (self.root, self.root / ".new"):
                with suppress(OSError):
                    Path(folder).rmdir()
        return removed

    def parts(self, prefix: str, limit: int) -> list[str]:
        """What stands between a prefix and the next ``/``, in order."""
        try:
            with os.scandir(self.root / check_name(prefix, prefix=True)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))[-limit:]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(
                f"{self.root / prefix} cannot be read ({error.strerror}); check the exchange's folder."
            ) from error

    def close(self) -> None:
        """Has nothing to let go of."""
