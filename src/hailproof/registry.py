"""Finds a class by its name, among the built-in ones and those that other packages register.

A package's registry is a literal dict from name to ``module:Class``. A third party adds to it through an entry point of
the group ``hailproof.<kind>`` (``hailproof.attacks``, ``hailproof.defenses``, ``hailproof.tasks``). A module is
imported only when its name is asked for. A built-in name cannot be taken over.
"""

import ast
import difflib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib.abc import InspectLoader
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, TypeVar

from hailproof.errors import ConfigError

T = TypeVar("T")


class Builtins(Mapping[str, T]):
    """The built-in classes of a kind, by name. Each is imported when it is asked for, so that to list names is cheap.

    Args:
        places: By name, the class as ``module:Class``.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> T:
        return pkgutil.resolve_name(self._places[name])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def about(self, name: str) -> str:
        """The first line of what the module of a class says of itself, read from its source: nothing is imported."""
        module = self._places[name].partition(":")[0]
        spec = find_spec(module)
        source = spec.loader.get_source(module) if spec and isinstance(spec.loader, InspectLoader) else None
        return _first_line(ast.get_docstring(ast.parse(source or "")))


def lookup(kind: str, builtin: Mapping[str, T], name: str) -> T:
    """Finds what a name stands for.

    Args:
        kind: The plural that names the entry point group: ``"attacks"``, ``"defenses"``, ``"tasks"``.
        builtin: What comes with hailproof, by name.
        name: The name to find.

    Returns:
        The built-in object of that name, else the one that an installed package registers under it.

    Raises:
        ConfigError: If there is none, or the package that registers it fails to load.
    """
    if name in builtin:
        return builtin[name]
    for entry in entry_points(group=f"hailproof.{kind}", name=name):
        try:
            return entry.load()
        except Exception as error:  # importing foreign code may raise anything
            package = entry.dist.name if entry.dist else entry.value
            raise ConfigError(
                f"The {kind.removesuffix('s')} {name!r} of {package} does not load ({error}); mend or uninstall it."
            ) from error
    known = names(kind, builtin)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(f"Unknown {kind.removesuffix('s')} {name!r}{hint}; choose one of {', '.join(known)}.")


def names(kind: str, builtin: Mapping[str, object]) -> tuple[str, ...]:
    """Lists every name that :func:`lookup` finds: the built-in ones in order, then the registered ones, sorted."""
    registered = {entry.name for entry in entry_points(group=f"hailproof.{kind}")}
    return (*builtin, *sorted(registered - set(builtin)))


def about(kind: str, builtin: Builtins[Any], name: str) -> str:
    """Says in one line what a name stands for; a built-in one is not imported for it.

    Raises:
        ConfigError: If the package that registers it fails to load.
    """
    if name in builtin:
        return builtin.about(name)
    return _first_line(sys.modules[lookup(kind, builtin, name).__module__].__doc__)


def _first_line(text: str | None) -> str:
    return next(iter((text or "").splitlines()), "")
