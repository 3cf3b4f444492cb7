"""A trainer of somebody else's as a member of a real swarm, beside nodes of ``hailproof node``.

It reads the same two files as a node, so that it has a key, an exchange and a journal, and says what nodes say. What
it holds after a round is its own trainer's, and no other node's: so the swarm must be one whose nodes do not compare
weights.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from hailproof.errors import ConfigError
from hailproof.exchange.gate import Gate
from hailproof.exchange.rounds import StoreExchange
from hailproof.exchange.stores import FolderStore
from hailproof.identity import Identity
from hailproof.records import Problem, Submission
from hailproof.runs.build import public_plan, shared
from hailproof.service.config import NodeFiles, load_node
from hailproof.service.open import open_store
from hailproof.wire import State

_OWN = bytes(32)
"""In place of hashes of what no other node holds."""


@final
class TrainerExchange:
    """One member's exchange for a trainer that plays round after round; implements ``protocols.Exchange``.

    The trainer gathers each round once. When it comes for the next one it has learned from the last, and says so; after
    the last round it must be closed.

    Args:
        files: The node's configuration; ``of_file`` reads it.

    Attributes:
        node: The member's index.
        nodes: How many members there are.
        seed: The swarm's public seed.
        draw_seed: Secret seed of what this member draws; ``None`` if the swarm's draws are public.
        sampling: How completions are drawn.
        group_size: Completions of each prompt.
        rounds: How many rounds the swarm plays.
        task: Problems, prompts and rewards.

    Raises:
        ConfigError: If the files are wrong, or the swarm is none that such a trainer can be in.
    """

    def __init__(self, files: NodeFiles) -> None:
        swarm = files.swarm
        identity = Identity.load(files.path(files.node.identity))
        if identity.key not in swarm.keys:
            raise ConfigError(f"The key {identity.name} is not among the swarm's members; add it to 'members'.")
        swarm.check_keys()
        run = shared(swarm.run_config())
        if run.swarm.topology != "horizontal" or swarm.panel or swarm.admission.seats:
            raise ConfigError(
                "A trainer can be a member of a horizontal swarm without panel and admission; leave those out."
            )
        if run.swarm.group_size % len(swarm.keys):
            raise ConfigError(
                f"run.swarm.group_size = {run.swarm.group_size} is no multiple of {len(swarm.keys)} members, so that "
                "plans deal slots otherwise than a trainer does; choose one."
            )
        if run.swarm.homogeneous:
            raise ConfigError(
                "Nodes of this swarm compare their weights, and a trainer holds others; name two models in "
                "run.swarm.models, so that they do not."
            )
        self.task, self._planner = public_plan(run)
        self.node, self.nodes = swarm.keys.index(identity.key), len(swarm.keys)
        self.seed, self.sampling = run.seed, run.sampling.build()
        self.group_size, self.rounds = run.swarm.group_size, run.rounds
        name = swarm.id_of(run)
        self.draw_seed = swarm.draw_seed(identity, name)
        gate = Gate(swarm.limits_of(), swarm.keys, name)
        self._exchange = StoreExchange(
            open_store(files.node.exchange, files.node.options, gate, files.base), identity, swarm.keys, name,
            swarm.timing.build(), gate, FolderStore(files.path(files.node.folder) / "journal"),
        )  # fmt: skip
        self._decision = _OWN
        self._round = 0
        self._named: Mapping[str, str] = {}

    @classmethod
    def of_file(cls, path: Path) -> "TrainerExchange":
        """The exchange of the member whose ``node.toml`` lies at a path."""
        return cls(load_node(path))

    def problems(self) -> list[Problem]:
        """The problems of all rounds in their order: the rows of a trainer's data, which it must not shuffle."""
        rounds = range(1, self.rounds + 1)
        return [problem for round in rounds for problem in self._planner.plan(round).problems.values()]

    def name_of(self, prompt: Any) -> str:
        """What the plan calls a prompt.

        Args:
            prompt: Messages, the last of which is the question as the task writes it.

        Raises:
            ConfigError: If the swarm has no such problem.
        """
        if not self._named:
            self._named = {self.task.prompt(problem).user: problem.id for problem in self._planner.problems}
        try:
            return self._named[prompt[-1]["content"]]
        except (LookupError, TypeError) as error:
            raise ConfigError(
                f"The prompt {prompt!r:.80} is none of the swarm's problems; make the data of problems()."
            ) from error

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Sends the own submissions of a round and returns everybody's, in the order of problem, slot and sender."""
        self._close(round - 1)
        gathered = self._exchange.gather(round, submissions)
        self._decision, self._round = gathered.decision, round
        return list(gathered.submissions)

    def _close(self, round: int) -> None:
        """Says that a round is over; before the first one waits for the others."""
        state = State(self._decision, _OWN, _OWN, int(time.time() * 1000))
        if round:
            self._exchange.agree(round, state)
        elif not self._exchange.waited():
            self._exchange.lobby(state)

    def beacon(self, round: int) -> int | None:
        """The beacon of the round that was gathered last."""
        return self._exchange.beacon(round)

    def close(self) -> None:
        """Says that the last round is over, and lets go of connections."""
        if self._round:
            self._close(self._round)
        self._exchange.store.close()

    def __enter__(self) -> "TrainerExchange":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
