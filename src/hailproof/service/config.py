"""The two files of a real swarm: what all nodes share, and what belongs to one of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hailproof.errors import ConfigError
from hailproof.exchange.admission import Admission, Rolls
from hailproof.exchange.gate import Limits
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity, is_placeholder, parse_key
from hailproof.runs.config import AttackConfig, RunConfig, read_toml
from hailproof.settings import Count, Natural, Section, validated

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$"
_MACHINE = ("threads", "name")
"""Keys of the run that may differ from machine to machine, beside ``swarm.device``."""
MOST_MEMBERS = 10_000
MOST_PLACES = 64
Seconds = Annotated[float, Field(gt=0, le=86400)]
_TIMING = Timing()


class TimingConfig(Section):
    """Seconds that each phase of a round has at most; ``exchange.timing.Timing`` says what each is for."""

    commit: Seconds = _TIMING.commit
    reveal: Seconds = _TIMING.reveal
    seal: Seconds = _TIMING.seal
    seen: Seconds = _TIMING.seen
    state: Seconds = _TIMING.state
    lobby: Seconds = _TIMING.lobby
    poll: Seconds = _TIMING.poll

    def build(self) -> Timing:
        """The times as the exchange takes them."""
        return Timing(**self.model_dump())


class LimitsConfig(Section):
    """The most bytes that one sender may send in a round, and that a checkpoint may have."""

    batch: Count = Limits().batch
    checkpoint: Count = Limits().checkpoint


class AdmissionConfig(Section):
    """How strangers become members (``exchange.admission``); without seats nobody does.

    Attributes:
        seats: Strangers that can become members, all together, beside the members of the file.
        rounds: Honest rounds that a stranger pays before it is heard.
        places: Strangers that pay at the same time; without a fee, those that become members in one round.
        hook: ``module:function(public_key, genesis) -> bool``, asked before a stranger may begin to pay; with
            ``rounds = 0`` its answer, as a majority of the members gets it, is enough.
    """

    seats: Natural = 0
    rounds: Annotated[int, Field(ge=0, le=10_000)] = 0
    places: Annotated[int, Field(ge=1, le=MOST_PLACES)] = 4
    hook: Annotated[str, Field(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$")] = ""

    @model_validator(mode="after")
    def _costs_something(self) -> "AdmissionConfig":
        if self.seats and not self.rounds and not self.hook:
            raise ValueError("admission.seats lets strangers in for nothing; set admission.rounds, or a hook")
        if not self.seats and (self.rounds or self.hook):
            raise ValueError("admission has no seats, so that nobody can join; set admission.seats")
        return self


class SwarmFile(Section):
    """What all nodes of a swarm share, to the letter; its hash is part of the swarm's id.

    Attributes:
        name: What people call it.
        members: Public keys of all nodes, in the order of their indices: the allow-list.
        admission: How strangers become members as well.
        panel: Members that send and list in a round, an odd number, drawn anew for each round and the same for all
            nodes; 0: all members do.
        draws: ``private``: nobody can compute what a node will draw, so that nobody can choose its own completions by
            that; ``public``: nodes that hold the same weights can repeat each other's draws, as ``replay`` does.
        run: Task, model, learner, defenses, rounds and seed.
        timing: Deadlines.
        limits: Sizes.
    """

    name: Annotated[str, Field(pattern=_NAME)] = "swarm"
    members: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    admission: AdmissionConfig = AdmissionConfig()
    panel: Natural = 0
    draws: Literal["public", "private"] = "public"
    run: dict[str, Any] = Field(default_factory=dict)
    timing: TimingConfig = TimingConfig()
    limits: LimitsConfig = LimitsConfig()

    @field_validator("members")
    @classmethod
    def _are_keys(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            try:
                parse_key(member)
            except ConfigError as error:
                raise ValueError(str(error).removesuffix(".")) from error
        if len({member.strip().lower() for member in members}) < len(members):
            raise ValueError("a key is listed twice among the members; list each node once")
        return members

    def index_of(self, key: bytes) -> int:
        """The index of a member of the file; for a stranger one that no member can have."""
        return self.keys.index(key) if key in self.keys else self.most_members

    def check_keys(self) -> None:
        """Makes sure that the members are keys that somebody made.

        Raises:
            ConfigError: If one is the placeholder of an example.
        """
        for key in self.keys:
            if is_placeholder(key):
                raise ConfigError(
                    f"The member {key.hex()} is a placeholder, not a key that somebody made; replace it by what "
                    "'hailproof keygen' shows."
                )

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The members' public keys."""
        return tuple(parse_key(member) for member in self.members)

    @model_validator(mode="after")
    def _are_not_too_many(self) -> "SwarmFile":
        if self.most_members > MOST_MEMBERS:
            raise ValueError(
                f"{len(self.members)} members and {self.admission.seats} seats are more than {MOST_MEMBERS}; lower "
                "admission.seats"
            )
        if self.panel and (self.panel % 2 == 0 or self.panel > self.most_members):
            raise ValueError(
                f"panel = {self.panel} is no odd number of at most {self.most_members} members; give one, or none"
            )
        return self

    @property
    def dealt(self) -> int:
        """Members that the slots of a round are dealt to."""
        return self.panel or self.most_members

    @property
    def most_members(self) -> int:
        """Members that there may ever be."""
        return len(self.members) + self.admission.seats

    def run_config(self) -> RunConfig:
        """The run as it is written, not yet settled.

        Raises:
            ConfigError: If a key is wrong, or it has another number of nodes than slots are dealt to.
        """
        tree = {**self.run, "swarm": {"nodes": self.dealt, **self.run.get("swarm", {})}}
        config = validated(RunConfig, tree)
        if config.swarm.nodes != self.dealt:
            seats = f" and {self.admission.seats} seats" if self.admission.seats else ""
            found = f"the panel has {self.panel}" if self.panel else f"{len(self.members)} members are listed{seats}"
            raise ConfigError(f"run.swarm.nodes = {config.swarm.nodes}, but {found}; leave it out.")
        return config

    def id_of(self, settled: RunConfig) -> str:
        """The swarm's id: its name, and the hash of everything that its nodes must have in common."""
        run = settled.model_dump(mode="json", exclude=set(_MACHINE))
        run["swarm"].pop("device")
        shared = {
            "run": run, "members": [key.hex() for key in self.keys],
            "timing": self.timing.model_dump(), "limits": self.limits.model_dump(),
        }  # fmt: skip
        if self.admission.seats:
            shared["admission"] = self.admission.model_dump()
        if self.panel:
            shared["panel"] = self.panel
        if self.draws != "public":
            shared["draws"] = self.draws
        digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:16]}"

    def draw_seed(self, identity: Identity, swarm_id: str) -> int | None:
        """The seed of what a node draws, which only it knows; ``None`` if draws are public."""
        return identity.seed("draws", swarm_id) if self.draws == "private" else None

    def limits_of(self) -> Limits:
        """The sizes as gates take them."""
        welcomed = 2 * self.admission.places if self.admission.seats else 0
        return Limits(self.limits.batch, self.limits.checkpoint, self.dealt + welcomed)

    def rolls(self, seed: int) -> Rolls:
        """Who belongs to the swarm before its first round.

        Args:
            seed: The seed of the run.
        """
        given = self.admission
        admission = Admission(self.most_members, given.rounds, given.places) if given.seats else None
        return Rolls(self.keys, admission, seed, self.panel)


class NodeConfig(Section):
    """What belongs to one node.

    Attributes:
        swarm: The file that all share, or its content.
        identity: The key file.
        folder: Where the node keeps its checkpoints, journal, records and archive.
        exchange: A folder; ``http(s)://…`` of a relay; an address of a bucket (``s3://…``); or ``zenoh``.
        options: Of the exchange: ``ca`` of a relay, those of ``obstore`` for a bucket, keys of zenoh's configuration.
        device: Where the model runs, instead of what the shared file says.
        threads: Of torch; 0 for all cores.
        metrics_port: Where Prometheus metrics are served; 0 for nowhere.
        metrics_host: The address that they are served at.
        track: Trackers that the node's figures go to; its folder is theirs.
        retention: Rounds that the archive and the journal keep.
        checkpoints: Own checkpoints that are kept.
        catch_up: Rounds that are played again to catch up; if more were missed, a checkpoint is asked for.
        attack: For experiments: what the node does instead of sending what it should.
    """

    swarm: str | dict[str, Any]
    identity: str
    folder: str
    exchange: str
    options: dict[str, Any] = Field(default_factory=dict)
    device: str | None = None
    threads: Natural = 0
    metrics_port: Annotated[int, Field(ge=0, lt=65536)] = 0
    metrics_host: str = "127.0.0.1"
    track: tuple[str, ...] = ()
    retention: Count = 200
    checkpoints: Count = 3
    catch_up: Natural = 20
    attack: AttackConfig = AttackConfig()


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The configuration of one node, with paths relative to its file resolved.

    Attributes:
        node: What belongs to the node.
        swarm: What all share.
        base: The folder that paths are relative to.
    """

    node: NodeConfig
    swarm: SwarmFile
    base: Path

    def path(self, text: str) -> Path:
        """A path as the file means it."""
        return self.base / Path(text).expanduser()


def load_swarm(path: Path) -> SwarmFile:
    """Reads the file that all nodes share.

    Raises:
        ConfigError: If it is missing or something in it is wrong.
    """
    return _named(path, SwarmFile, read_toml(path))


def load_node(path: Path) -> NodeFiles:
    """Reads the configuration of a node, and the file that it shares with the others.

    Raises:
        ConfigError: If a file is missing or something in it is wrong.
    """
    node = _named(path, NodeConfig, read_toml(path))
    base = path.resolve().parent
    swarm = load_swarm(base / node.swarm) if isinstance(node.swarm, str) else _named(path, SwarmFile, node.swarm)
    return NodeFiles(node, swarm, base)


def _named(path: Path, section: type, tree: Mapping[str, Any]) -> Any:
    try:
        return validated(section, tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
