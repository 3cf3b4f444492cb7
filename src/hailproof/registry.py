"""Finds a class by its name, among the built-in ones and those that other packages register.

A package's registry is a literal dict from name to class. A third party adds to it through an entry point of the group
``hailproof.<kind>`` (``hailproof.attacks``, ``hailproof.defenses``, ``hailproof.tasks``); its module is imported only
when its name is asked for. A built-in name cannot be taken over.
"""

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from hailproof.errors import ConfigError

T = TypeVar("T")


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
