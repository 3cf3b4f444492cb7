"""Names: built-in, registered by other packages, and wrong ones."""

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from hailproof import registry
from hailproof.attacks import ATTACKS
from hailproof.defenses import DEFENSES
from hailproof.errors import ConfigError
from hailproof.registry import Builtins, about, lookup, names
from hailproof.tasks import TASKS

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


def test_builtins_import_a_class_only_when_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "a_lazy_one.py").write_text('"""Does much.\n\nSlowly."""\n\n\nclass Thing:\n    """A thing."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    builtin: Builtins[type] = Builtins({"lazy": "a_lazy_one:Thing", "absent": "no_such_module:Thing"})
    assert list(builtin) == ["lazy", "absent"] and len(builtin) == 2
    assert "lazy" in builtin and "other" not in builtin
    assert about("defenses", builtin, "lazy") == "Does much."
    assert "a_lazy_one" not in sys.modules
    assert lookup("defenses", builtin, "lazy").__name__ == "Thing"
    assert sys.modules.pop("a_lazy_one").Thing.__doc__ == "A thing."
    with pytest.raises(KeyError):
        builtin["other"]


def test_what_a_registered_name_stands_for_is_said_by_its_module(registered):
    import collections

    assert about("attacks", ATTACKS, "ordered") == (collections.__doc__ or "").splitlines()[0]
    assert about("attacks", ATTACKS, "ordered") != ""


@pytest.mark.parametrize(("kind", "builtin"), [("attacks", ATTACKS), ("defenses", DEFENSES), ("tasks", TASKS)])
def test_every_builtin_is_where_the_registry_says(kind, builtin):
    for name, found in builtin.items():
        assert found.name == name
        assert about(kind, builtin, name) == (sys.modules[found.__module__].__doc__ or "").splitlines()[0]
