"""From names to a chain: what a shield is built of, what it lacks, and which answers it reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from hailproof import registry
from hailproof.defenses import DEFENSES
from hailproof.defenses.chain import Chain
from hailproof.defenses.presets import PRESETS
from hailproof.errors import ConfigError, MismatchError
from hailproof.plugins import Plugin, make
from hailproof.protocols import Defense, Need, Variant
from hailproof.settings import validated

Named = str | tuple[str, Mapping[str, Any]] | Defense
"""A defense: a name or a preset's, a name with options, or a defense itself."""

_GIVE: Mapping[Need, str] = {
    "model": "model= and tokenizer=",
    "anchor": "model= and tokenizer=",
    "tokens": "tokenizer=",
    "own": "own=, your own name among the senders",
}
"""What to build a shield with whose chain lacks something."""

_BRING: Mapping[Need, str] = {"senders": "senders", "groups": "groups or prompts", "keys": "slot_keys"}
"""What to give with each batch."""


def chain_of(named: Iterable[Named]) -> Chain:
    """The chain that names, presets, names with options and defenses make.

    Raises:
        ConfigError: If it would be empty, or a name or option is wrong.
    """
    chain = Chain([defense for each in named for defense in _built(each)])
    if not chain.defenses:
        raise ConfigError(f"A shield without defenses keeps nothing out; name some of {', '.join(_known())}.")
    return chain


def flat(defenses: Iterable[Any]) -> Iterator[Any]:
    """Defenses one by one; lists of them are unpacked, but a pair of name and options is one."""
    for each in defenses:
        pair = isinstance(each, tuple) and len(each) == 2 and isinstance(each[1], Mapping)
        if isinstance(each, list | tuple) and not pair:
            yield from flat(each)
        else:
            yield each


def advice(lacking: Sequence[Need]) -> str:
    """What to do about what a chain lacks."""
    asked: list[Need] = [need for need in lacking if need != "tokens" or "model" not in lacking]
    parts = list(dict.fromkeys(_GIVE[need] for need in asked if need in _GIVE))
    brought: list[Need] = [need for need in asked if need in _BRING]
    if brought:
        names = ", ".join(repr(need) for need in brought)
        parts.append(f"brings={{{names}}}, and with each batch {' and '.join(_BRING[need] for need in brought)}")
    return f"give {' and '.join(parts)}"


def _known() -> list[str]:
    return [*PRESETS, *registry.names("defenses", DEFENSES)]


def _built(named: Any) -> list[Defense]:
    """The defenses that a name, a name with options, or a defense stands for."""
    if not isinstance(named, str | tuple):
        if not hasattr(named, "screen") or not hasattr(named, "admission"):
            raise ConfigError(f"{named!r:.80} is no defense; give a name, (name, options), or a defense.")
        return [named]
    name, options = (named, {}) if isinstance(named, str) else named
    if name not in PRESETS:
        return [make("defenses", DEFENSES, validated(Plugin, {"name": name, "options": dict(options)}))]
    if options:
        raise ConfigError(f"The preset '{name}' takes no options; name its defenses one by one instead.")
    return [
        make("defenses", DEFENSES, Plugin(name=defense, options=dict(chosen)))
        for defense, chosen in PRESETS[name].chain
    ]


def notes_of(named: Iterable[Any]) -> Iterator[str]:
    """What presets set besides their chains, which a shield cannot set in somebody else's trainer."""
    for name in named:
        preset = PRESETS.get(name) if isinstance(name, str) else None
        for section, values in preset.settings.items() if preset else ():
            for key, value in values.items():
                setting = str(value).lower() if isinstance(value, bool) else value
                yield f"The preset '{name}' also counts on {section}.{key} = {setting}, which is the trainer's to do."


def variant_of(chain: Chain, variant: Variant | None) -> Variant:
    """The kind of answers that a chain reads.

    Raises:
        MismatchError: If a defense reads nothing of the kind that is asked for.
    """
    read = {each.name: tuple(getattr(each, "variants", get_args(Variant))) for each in chain.defenses}
    if variant is None:
        return "code" if ("code",) in read.values() and ("math",) not in read.values() else "math"
    if variant not in get_args(Variant):
        raise ConfigError(f"variant = {variant!r} is unknown; use math or code.")
    for name, variants in read.items():
        if variant not in variants and (variant,) not in read.values():
            raise MismatchError(f"Defense {name} reads {' and '.join(variants)}, not {variant}; leave it out.")
    return variant
