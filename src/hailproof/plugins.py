"""A name with options, and the thing that it stands for: an attack, a defense or a task."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import Field, PydanticSchemaGenerationError, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from hailproof import registry
from hailproof.errors import ConfigError
from hailproof.settings import Section


class Plugin(Section):
    """A named thing with options: an attack, a defense or a task."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _options_are_finite(self) -> "Plugin":
        for option, value in self.options.items():
            for each in scalars(value):
                if isinstance(each, float) and not math.isfinite(each):
                    raise ValueError(f"the option '{option}' of '{self.name}' is {each}; give it a finite number")
        return self


def scalars(tree: Any) -> Iterator[Any]:
    """Everything in a tree that is no table or list."""
    if isinstance(tree, Mapping | list | tuple):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from scalars(value)
    else:
        yield tree


P = TypeVar("P", bound=Plugin)


def make(kind: str, builtin: Mapping[str, Any], plugin: Plugin) -> Any:
    """Builds a registered thing from its name and options.

    Raises:
        ConfigError: If the name is unknown, or an option is not one of its parameters or not of its type.
    """
    return checked(kind, builtin, plugin)()


def checked(kind: str, builtin: Mapping[str, Any], plugin: Plugin) -> Callable[[], Any]:
    """What a name stands for with its options, once they are found right by name and type; builds nothing.

    Raises:
        ConfigError: If the name is unknown, or an option is not one of its parameters or not of its type.
    """
    factory = registry.lookup(kind, builtin, plugin.name)
    parameters = inspect.signature(factory).parameters
    accepted = [name for name in parameters if name not in ("args", "kwargs")]
    for option in plugin.options:
        if option not in accepted:
            raise ConfigError(
                f"The {kind.removesuffix('s')} '{plugin.name}' has no option '{option}'; "
                f"its options are: {', '.join(accepted) or 'none'}."
            )
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name in accepted and name not in plugin.options
    ]
    if missing:
        raise ConfigError(f"The {kind.removesuffix('s')} '{plugin.name}' needs the option '{missing[0]}'.")
    types = _types_of(factory)
    typed: dict[str, Any] = {}
    for option, value in plugin.options.items():
        try:
            typed[option] = _typed(TypeAdapter(types[option]), value) if option in types else value
        except PydanticSchemaGenerationError:  # a type of somebody's own: its constructor looks at the value
            typed[option] = value
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "it should")
            raise ConfigError(
                f"The option '{option}' of the {kind.removesuffix('s')} '{plugin.name}' is {value!r}; {reason}."
            ) from error
    return functools.partial(factory, **typed)


def _typed(adapter: TypeAdapter[Any], value: Any) -> Any:
    """A value as the type of an option, strictly: a bool is no number, and a text neither."""
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError:  # arrays of TOML for tuples and sets, texts for paths
        return adapter.validate_json(to_json(value), strict=True)


def _types_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable's or class's parameters; none if they cannot be resolved."""
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):
        return {}


def with_defaults(kind: str, builtin: Mapping[str, Any], plugin: P) -> P:
    """A plugin with the defaults of all options that can stand in a file."""
    parameters = inspect.signature(registry.lookup(kind, builtin, plugin.name)).parameters.values()
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, str | bool | int | float)}
    return plugin.model_copy(update={"options": {**defaults, **plugin.options}})
