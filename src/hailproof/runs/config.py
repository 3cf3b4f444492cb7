"""The configuration of a run: frozen, typed, unknown keys rejected.

The same file describes a run on the shipped nano models and one on real models and GPUs.
"""

import tomllib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from hailproof.attacks.base import Composition
from hailproof.errors import ConfigError
from hailproof.files import read_text
from hailproof.learner.config import LearnerConfig
from hailproof.parsing import encodable
from hailproof.plugins import Plugin, scalars
from hailproof.protocols import PromptChoice, Sampling, Topology
from hailproof.settings import SHOWN, Count, Later, Natural, Section, validated

MAX_DEPTH = 32
"""Tables and arrays in each other; no configuration comes near it, and what is nested deeper breaks parsers."""
MAX_INTEGER = 2**63
"""TOML's integers have 64 bits."""


class TaskConfig(Plugin):
    """Which problems are trained on."""

    name: str = "word_problems"


class SwarmConfig(Section):
    """Who trains, and how prompts are dealt."""

    nodes: Count = 4
    topology: Topology = "horizontal"
    prompts: Count = 16
    group_size: Annotated[int, Field(ge=2)] = 12
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("nano-a",)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    engine: str = "transformers"
    separate: bool = False
    prompt_choice: PromptChoice = "free"
    sharing: Literal["all", "sampled"] = "all"
    own_groups: Natural = 4
    received_groups: Natural = 4

    @property
    def homogeneous(self) -> bool:
        """Whether all nodes hold the same weights."""
        return len(set(self.models)) == 1

    @model_validator(mode="after")
    def _fits(self) -> "SwarmConfig":
        chosen = "topology" in self.model_fields_set  # else it is the attack's, which is not known here
        if chosen and self.topology == "horizontal" and self.group_size < self.nodes:
            raise ValueError(
                f"group_size (G) = {self.group_size} is smaller than the number of nodes = {self.nodes}: in a "
                "horizontal swarm every node answers every prompt, so raise group_size or lower nodes"
            )
        if self.topology == "vertical" and self.prompts < self.nodes:
            raise ValueError(
                f"prompts (B) = {self.prompts} is smaller than the number of nodes = {self.nodes}: in a vertical swarm "
                "every node brings its own prompts, so raise prompts or lower nodes"
            )
        if len(self.models) > self.nodes:
            raise ValueError(
                f"swarm.models has {len(self.models)} entries for swarm.nodes = {self.nodes}, so that some would never "
                "run; raise swarm.nodes, or name fewer models"
            )
        for key in ("own_groups", "received_groups"):
            value = getattr(self, key)
            if self.sharing == "all" and value != SwarmConfig.model_fields[key].default:
                raise ValueError(
                    f"swarm.{key} = {value} is set, but with sharing = all every group is learned from; set "
                    f"swarm.sharing = sampled, or leave swarm.{key} out"
                )
        if self.sharing == "sampled" and not self.own_groups + self.received_groups:
            raise ValueError("own_groups and received_groups are both 0, so nothing is learned; raise one")
        if self.sharing == "sampled" and self.topology != "vertical":
            raise ValueError(
                "sharing = sampled takes whole groups from other nodes, so it needs topology = vertical"
            )
        return self


class AttackConfig(Composition, Plugin):
    """What the malicious nodes do; ``name = "none"`` and ``malicious = 0`` make a clean swarm.

    What a configuration leaves out is the attack's own setting, if it has one.
    """

    name: str = "none"
    malicious: Natural | None = None


_SAMPLING = Sampling()


class SamplingConfig(Section):
    """How tokens are drawn; the length is the task's if the configuration leaves it out.

    Greedy draws, which policies know (``Sampling``), are refused: groups of equals teach nothing.
    """

    temperature: Annotated[float, Field(ge=0)] = _SAMPLING.temperature
    top_k: Natural = _SAMPLING.top_k
    top_p: Annotated[float, Field(gt=0, le=1)] = _SAMPLING.top_p
    max_new_tokens: Count | None = None

    @model_validator(mode="after")
    def _draws_differ(self) -> "SamplingConfig":
        for key, value, advice in (
            ("temperature", self.temperature == 0, "a number above 0, such as 1"),
            ("top_k", self.top_k == 1, "2 or more, or 0 for no limit"),
        ):
            if value:
                raise ValueError(
                    f"sampling.{key} = {getattr(self, key)} draws the same completion in every slot of a prompt, and a "
                    f"group of equals has nothing to learn from; use {advice}"
                )
        return self

    def build(self) -> Sampling:
        """The settings as the policies take them.

        Raises:
            ConfigError: If the length limit was not resolved.
        """
        if self.max_new_tokens is None:
            raise ConfigError("sampling.max_new_tokens is not set; give it a number of tokens.")
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
        )


class EvaluationConfig(Section):
    """Held-out evaluation after the last round and, if asked for, after every so many rounds.

    ``targeted`` problems that the attack can be carried out on are asked besides, if it is not 0.
    """

    problems: Natural = 128
    every: Natural = 0
    targeted: Later[Natural] = 0

    @model_validator(mode="after")
    def _has_what_it_asks(self) -> "EvaluationConfig":
        if self.every and not self.problems:
            raise ValueError(
                f"evaluation.every = {self.every} is set, but evaluation.problems = 0 leaves nothing to ask; raise "
                "evaluation.problems, or leave evaluation.every out"
            )
        return self


class RunConfig(Section):
    """Everything that a run depends on."""

    name: str = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count = 60
    threads: Natural = 0
    task: TaskConfig = TaskConfig()
    swarm: SwarmConfig = SwarmConfig()
    attack: AttackConfig = AttackConfig()
    defense: tuple[Plugin, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def malicious(self) -> int:
        """Number of malicious nodes: as configured, else a quarter of the nodes if there is an attack, at least one."""
        if self.attack.name == "none":
            return 0
        if self.attack.malicious is None:
            return max(1, self.swarm.nodes // 4)
        return self.attack.malicious

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\") or len(name.encode()) > 200:
            raise ValueError(
                f"name = {name!r:.{SHOWN}} cannot be the name of a folder; give 1 to 200 letters, without / and \\"
            )
        return name

    @model_validator(mode="after")
    def _sets_nothing_of_an_attack_without_one(self) -> "RunConfig":
        if self.attack.name == "none":
            unset = AttackConfig()
            for key in AttackConfig.model_fields:
                value = getattr(self.attack, key)
                if value != getattr(unset, key) and (key, value) != ("malicious", 0):
                    raise ValueError(
                        f"attack.{key} = {value!r:.{SHOWN}} is set, but there is no attack; set attack.name, or leave "
                        f"attack.{key} out"
                    )
        return self

    @model_validator(mode="after")
    def _leaves_someone_honest(self) -> "RunConfig":
        if self.malicious >= self.swarm.nodes:
            raise ValueError(
                f"attack.malicious = {self.malicious} leaves no honest node among {self.swarm.nodes}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _has_rounds_enough(self) -> "RunConfig":
        if self.evaluation.every > self.rounds:
            raise ValueError(
                f"evaluation.every = {self.evaluation.every} is more than rounds = {self.rounds}, so that nothing is "
                "evaluated on the way; lower it, or leave it out: after the last round there is an evaluation anyway"
            )
        if self.learner.warmup_rounds > self.rounds:
            raise ValueError(
                f"learner.warmup_rounds = {self.learner.warmup_rounds} is more than rounds = {self.rounds}, so that "
                "the learning rate is never reached; lower it, or raise rounds"
            )
        return self

    def to_toml(self) -> str:
        """The whole resolved configuration as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key; a table in a list, as the defenses are, goes by its name."""
    *path, last = key.split(".")
    section: Any = tree
    for part in path:
        section = _named(section, part, key) if isinstance(section, list) else section.setdefault(part, {})
        if not isinstance(section, dict | list):
            raise ConfigError(f"'{key}' cannot be set: '{part}' is not a section.")
    if isinstance(section, list):
        raise ConfigError(f"'{key}' cannot be set: '{path[-1]}' is a list; write {path[-1]}.NAME.KEY.")
    section[last] = deepcopy(value)


def _named(tables: Sequence[Any], name: str, key: str) -> dict[str, Any]:
    """The table of that name in a list."""
    named = {str(table.get("name")): table for table in tables if isinstance(table, dict)}
    if name not in named:
        advice = f"; add it with --defense {name}" if key.startswith("defense.") else ""
        raise ConfigError(f"'{key}' cannot be set: '{name}' is not among {', '.join(named) or 'them'}{advice}.")
    return named[name]


def parse_assignment(text: str) -> tuple[str, Any]:
    """Reads ``key=value`` of ``--set``; the value is TOML, or plain text if it is not.

    Raises:
        ConfigError: If there is no ``=``.
    """
    key, mark, value = text.partition("=")
    if not mark or not key.strip():
        raise ConfigError(f"'{text:.{SHOWN}}' is not key=value; write for example --set learner.learning_rate=1e-4.")
    try:
        tree = parsed(f"value = {value}", f"The value of '{key.strip():.{SHOWN}}'")
        if list(tree) != ["value"]:
            raise ConfigError(f"'{text:.{SHOWN}}' holds more than one assignment; give each an option of its own.")
        return key.strip(), tree["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def parsed(text: str, what: str) -> dict[str, Any]:
    """Parses TOML.

    Args:
        text: The TOML.
        what: What messages call it.

    Raises:
        TOMLDecodeError: If it is none.
        ConfigError: If it is nested too deeply, or an integer has more than 64 bits.
    """
    try:
        tree = tomllib.loads(text)
        _check_size(tree)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise ConfigError(f"{what} is nested too deeply; nest at most {MAX_DEPTH} tables and arrays.") from error
    except ValueError as error:  # the limit of Python on the digits of an integer
        raise ConfigError(f"{what} holds an integer of more than 64 bits; give a smaller one.") from error
    return tree


def _check_size(tree: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            _check_size(value, depth + 1)
    elif isinstance(tree, int) and not -MAX_INTEGER <= tree < MAX_INTEGER:
        raise ValueError


def tree_of(assignments: Sequence[str]) -> dict[str, Any]:
    """The tree of sections that some ``key=value`` make.

    Raises:
        ConfigError: If one is not of that form.
    """
    tree: dict[str, Any] = {}
    for text in assignments:
        _set(tree, *parse_assignment(text))
    return tree


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ConfigError: If it is missing, no text, or not TOML.
    """
    text = read_text(path, "check the path", ConfigError)
    try:
        return parsed(text, str(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def load_config(path: Path | None = None, overrides: Sequence[tuple[str, Any]] = ()) -> RunConfig:
    """Reads a configuration file and applies overrides.

    Args:
        path: A TOML file; ``None`` starts from the defaults.
        overrides: Dotted keys and values, applied in order.

    Raises:
        ConfigError: If the file is missing or not TOML, a key is unknown, or a value is out of range.
    """
    tree = {} if path is None else read_toml(path)
    for key, value in overrides:
        first, _, rest = key.partition(".")
        if first == "defense" and rest and not tree.get(first):
            name = rest.partition(".")[0]
            raise ConfigError(f"'{key}' cannot be set: there is no defense '{name}'; add it with --defense {name}.")
        _set(tree, key, value)
    if not isinstance(tree.get("defense", []), list | tuple):
        raise ConfigError(
            f"defense = {tree['defense']!r:.{SHOWN}} is no list of defenses; name each with --defense NAME, or in the "
            'file under [[defense]] with name = "NAME".'
        )
    for text in scalars(tree):
        if isinstance(text, str) and encodable(text) != text:
            raise ConfigError(f"The configuration holds {text!r:.{SHOWN}}, which is not UTF-8 text; rename it.")
    try:
        return validated(RunConfig, tree)
    except ConfigError as error:
        raise error if path is None or overrides else ConfigError(f"{path}: {error}") from None
