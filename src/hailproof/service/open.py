"""Opens the exchange that a node's configuration names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hailproof.errors import ConfigError
from hailproof.exchange.gate import Gate
from hailproof.exchange.object_store import ObjectStore
from hailproof.exchange.relay import RelayStore
from hailproof.exchange.stores import FolderStore, Store
from hailproof.exchange.zenoh import ZenohStore


def open_store(address: str, options: Mapping[str, Any], gate: Gate, base: Path) -> Store:
    """Opens an exchange.

    Args:
        address: A folder, ``http(s)://…`` of a relay, an address that ``obstore`` knows, or ``zenoh``.
        options: Of that kind of exchange.
        gate: Lets in what peers send by themselves, for zenoh.
        base: The folder that a relative folder is meant from.

    Raises:
        ConfigError: If the address or an option is wrong, or a package is missing.
    """
    scheme = address.partition("://")[0] if "://" in address else ""
    if address == "zenoh":
        if gate.strangers:
            raise ConfigError(
                "Peers of zenoh keep what anybody sends them, so strangers could fill them; use a relay, a folder or a "
                "bucket where admission.seats is set."
            )
        wrong = [key for key, value in options.items() if not isinstance(value, str)]
        if wrong:
            raise ConfigError(f"options.{wrong[0]} is no text; write keys of zenoh's configuration as JSON5 in quotes.")
        # A node looks at what it was sent once more when it reads it, so both may take the same frame.
        return ZenohStore(lambda name, data: gate.take(name, data, again=True), options)
    if scheme in ("http", "https"):
        _only(options, ("ca",), "a relay")
        ca = options.get("ca")
        return RelayStore(address, None if ca is None else str(base / ca))
    if scheme in ("", "file"):
        _only(options, (), "a folder")
        return FolderStore(base / Path(address.removeprefix("file://")).expanduser())
    return ObjectStore(address, options)


def _only(options: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in options:
        if key not in known:
            raise ConfigError(f"The exchange over {what} has no option '{key}'; remove it or check its spelling.")
