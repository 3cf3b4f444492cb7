"""Names: built-in, registered by other packages, and wrong ones."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from hailproof import registry
from hailproof.errors import ConfigError
from hailproof.registry import lookup, names

BUILTIN = {"text": str, "equation": int, "code": float}


@pytest.fixture
def registered(monkeypatch):
    points = EntryPoints(
        [
            EntryPoint("ordered", "collections:OrderedDict", "hailproof.attacks"),
            EntryPoint("text", "collections:Counter", "hailproof.attacks"),
            EntryPoint("absent", "no_such_package:Attack", "hailproof.attacks"),
            EntryPoint("unset", "collections:NoSuchClass", "hailproof.attacks"),
            EntryPoint("guard", "collections:ChainMap", "hailproof.defenses"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda **selection: points.select(**selection))


def test_builtin_names_are_found():
    assert lookup("attacks", BUILTIN, "equation") is int


def test_registered_names_are_found_in_their_own_group(registered):
    import collections

    assert lookup("attacks", BUILTIN, "ordered") is collections.OrderedDict
    with pytest.raises(ConfigError, match="Unknown attack 'guard'"):
        lookup("attacks", BUILTIN, "guard")


def test_a_builtin_name_cannot_be_taken_over(registered):
    assert lookup("attacks", BUILTIN, "text") is str


def test_names_lists_builtin_then_registered(registered):
    assert names("attacks", BUILTIN) == ("text", "equation", "code", "absent", "ordered", "unset")
    assert names("defenses", {}) == ("guard",)
    assert names("tasks", {}) == ()


def test_unknown_names_get_the_choice():
    with pytest.raises(ConfigError) as caught:
        lookup("attacks", BUILTIN, "zzz")
    assert str(caught.value) == "Unknown attack 'zzz'; choose one of text, equation, code."


def test_near_misses_get_a_suggestion():
    with pytest.raises(ConfigError) as caught:
        lookup("defenses", BUILTIN, "equations")
    assert str(caught.value) == (
        "Unknown defense 'equations' (did you mean 'equation'?); choose one of text, equation, code."
    )


@pytest.mark.parametrize("name", ["absent", "unset"])
def test_a_registered_name_that_does_not_load_is_reported(registered, name: str):
    with pytest.raises(ConfigError, match=f"The attack '{name}' of .* does not load"):
        lookup("attacks", BUILTIN, name)


def test_listing_imports_nothing(registered):
    # "absent" would raise if it were imported.
    assert "absent" in names("attacks", BUILTIN)
    assert lookup("attacks", BUILTIN, "code") is float
