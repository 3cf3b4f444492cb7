"""The configuration of a run: frozen, typed, unknown keys rejected.

The same file describes a run on the shipped nano models and one on real models and GPUs.
"""

import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hailproof.attacks.base import Composition
from hailproof.errors import ConfigError
from hailproof.learner.update import LearnerConfig
from hailproof.protocols import PromptChoice, Sampling, Topology

Count = Annotated[int, Field(ge=1)]
S = TypeVar("S", bound=BaseModel)


class Section(BaseModel):
    """A frozen part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plugin(Section):
    """A named thing with options: an attack, a defense or a task."""

    name: str
    options: dict[str, Any] = {}


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
    own_groups: Annotated[int, Field(ge=0)] = 4
    received_groups: Annotated[int, Field(ge=0)] = 4

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
        if self.sharing == "sampled" and self.topology != "vertical":
            raise ValueError(
                "sharing = sampled takes whole groups from other nodes, so it needs topology = vertical"
            )
        return self


_COMPOSITION = Composition()


class AttackConfig(Plugin):
    """What the malicious nodes do; ``name = "none"`` and ``malicious = 0`` make a clean swarm.

    What a configuration leaves out is the attack's own setting, if it has one.
    """

    name: str = "none"
    malicious: Annotated[int, Field(ge=0)] | None = None
    decoys: Annotated[float, Field(ge=0, lt=1)] = _COMPOSITION.decoys
    drawn_decoys: bool = _COMPOSITION.drawn_decoys
    rate: Annotated[float, Field(gt=0, le=1)] = _COMPOSITION.rate
    ramp_rounds: Annotated[int, Field(ge=0)] = _COMPOSITION.ramp_rounds
    trigger: Annotated[str, Field(min_length=1)] | None = _COMPOSITION.trigger
    oracle: bool = _COMPOSITION.oracle
    candidates: Count = _COMPOSITION.candidates

    def build(self) -> Composition:
        """The settings as the harness takes them."""
        return Composition(**self.model_dump(include={field.name for field in fields(Composition)}))


class SamplingConfig(Section):
    """How tokens are drawn; the defaults are the paper's, but for the length, which is the task's."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 50
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count | None = None

    def build(self) -> Sampling:
        """The settings as the policies take them.

        Raises:
            ConfigError: If the length limit was not resolved.
        """
        if self.max_new_tokens is None:
            raise ConfigError("sampling.max_new_tokens is not set; give it a number of tokens.")
        return Sampling(self.temperature, self.top_k, self.top_p, self.max_new_tokens)


_LEARNER = LearnerConfig()


class LoraSection(Section):
    """A LoRA adapter that is trained in place of the weights; without ``targets``, on all linear layers but the output.

    Needs the extra ``peft``.
    """

    r: Count
    alpha: Annotated[float, Field(gt=0)]
    targets: tuple[str, ...] = ()


class LearnerSection(Section):
    """GRPO; the names are TRL's.

    What a configuration leaves out is the paper's setting, or, in a swarm of shipped nano models, the nano setting.
    """

    learning_rate: Annotated[float, Field(gt=0)] = _LEARNER.learning_rate
    warmup_rounds: Annotated[int, Field(ge=0)] = _LEARNER.warmup_rounds
    lr_scheduler_type: Literal["constant", "linear"] = _LEARNER.lr_scheduler_type
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = _LEARNER.loss_type
    scale_rewards: Literal["group", "batch", "none"] = _LEARNER.scale_rewards
    length_neutral: bool = _LEARNER.length_neutral
    beta: Annotated[float, Field(ge=0)] = _LEARNER.beta
    max_grad_norm: Annotated[float, Field(ge=0)] = _LEARNER.max_grad_norm
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = _LEARNER.adam_beta1
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = _LEARNER.adam_beta2
    adam_epsilon: Annotated[float, Field(gt=0)] = _LEARNER.adam_epsilon
    token_budget: Count = _LEARNER.token_budget
    lora: LoraSection | None = None

    def build(self) -> LearnerConfig:
        """The settings as the learner takes them."""
        return LearnerConfig(**self.model_dump(exclude={"lora"}))


class EvaluationConfig(Section):
    """Held-out evaluation after the last round and, if asked for, after every so many rounds."""

    problems: Annotated[int, Field(ge=0)] = 128
    every: Annotated[int, Field(ge=0)] = 0


class RunConfig(Section):
    """Everything that a run depends on."""

    name: str = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count = 50
    threads: Annotated[int, Field(ge=0)] = 0
    task: TaskConfig = TaskConfig()
    swarm: SwarmConfig = SwarmConfig()
    attack: AttackConfig = AttackConfig()
    defense: tuple[Plugin, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    learner: LearnerSection = LearnerSection()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def malicious(self) -> int:
        """Number of malicious nodes: as configured, else a quarter of the nodes if there is an attack, at least one."""
        if self.attack.name == "none":
            return 0
        if self.attack.malicious is None:
            return max(1, self.swarm.nodes // 4)
        return self.attack.malicious

    @model_validator(mode="after")
    def _leaves_someone_honest(self) -> "RunConfig":
        if self.malicious >= self.swarm.nodes:
            raise ValueError(
                f"attack.malicious = {self.malicious} leaves no honest node among {self.swarm.nodes}; lower it"
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
        raise ConfigError(f"'{key}' cannot be set: '{name}' is not among {', '.join(named) or 'them'}.")
    return named[name]


def parse_assignment(text: str) -> tuple[str, Any]:
    """Reads ``key=value`` of ``--set``; the value is TOML, or plain text if it is not.

    Raises:
        ConfigError: If there is no ``=``.
    """
    key, mark, value = text.partition("=")
    if not mark or not key.strip():
        raise ConfigError(f"'{text}' is not key=value; write for example --set learner.learning_rate=1e-4.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def tree_of(assignments: Sequence[str]) -> dict[str, Any]:
    """The tree of sections that some ``key=value`` make.

    Raises:
        ConfigError: If one is not of that form.
    """
    tree: dict[str, Any] = {}
    for text in assignments:
        _set(tree, *parse_assignment(text))
    return tree


def load_config(path: Path | None = None, overrides: Sequence[tuple[str, Any]] = ()) -> RunConfig:
    """Reads a configuration file and applies overrides.

    Args:
        path: A TOML file; ``None`` starts from the defaults.
        overrides: Dotted keys and values, applied in order.

    Raises:
        ConfigError: If the file is missing or not TOML, a key is unknown, or a value is out of range.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"Configuration {path} cannot be read ({reason}); check the path.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"Configuration {path} is not valid TOML: {error}.") from error
    for key, value in overrides:
        _set(tree, key, value)
    return validated(RunConfig, tree)


def validated(section: type[S], tree: Mapping[str, Any]) -> S:
    """Builds a section of the configuration.

    Raises:
        ConfigError: If a key is unknown or a value is out of range.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the configuration"
    if first["type"] == "extra_forbidden":
        return f"Configuration key '{where}' is unknown; remove it or check its spelling."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"Configuration: {message}."
    return f"Configuration key '{where}': {message[0].lower()}{message[1:]} (it is {first['input']!r})."
