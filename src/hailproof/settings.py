"""What every part of a configuration is: frozen, typed, unknown keys rejected; each key and its default stand once.

A part of the program that has settings declares them as a :class:`Section` beside its code, and the configuration of a
run is made of these same classes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hailproof.errors import ConfigError

Count = Annotated[int, Field(ge=1, lt=2**63)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
S = TypeVar("S", bound=BaseModel)

SHOWN = 80
"""Characters of a wrong value that a message shows."""


LATER = "a key that came later"
T = TypeVar("T")
Later = Annotated[T, LATER]
"""Type of a key that is left out of what is written as long as it has its default: folders of runs and cells are found
by a digest of their configuration, and keep it if the key comes to an older one."""


class Section(BaseModel):
    """A frozen part of the configuration; values have the types of TOML, a whole number may stand for any number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _arrays_are_tuples(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if LATER not in fields[key].metadata or value != fields[key].default
        }


def validated(section: type[S], tree: Mapping[str, Any]) -> S:
    """Builds a section of the configuration.

    Raises:
        ConfigError: If a key is unknown or a value is out of range.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explained(error)) from error


def explained(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the configuration"
    if first["type"] == "extra_forbidden":
        return f"Configuration key '{where}' is unknown; remove it or check its spelling."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"Configuration: {message}."
    return f"Configuration key '{where}': {message[0].lower()}{message[1:]} (it is {first['input']!r:.{SHOWN}})."
