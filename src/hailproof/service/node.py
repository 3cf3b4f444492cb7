"""``hailproof node``: one participant of a real swarm, from its files to its last round.

    [catch up or mend] -> produce -> exchange -> consume -> checkpoint -> states -> [mend] -> record

A key that the swarm's file does not list is a stranger's. Where strangers may join, its node asks to, and while it is
on trial it draws what it owes (``trials``), follows the rounds and learns from them as all do, but is not heard.

What it learns from is decided by ``exchange.rounds``; what it makes of it by ``node.HonestNode``, the same code as in
the simulation. Everything it needs to go on after ``kill -9`` is in its folder: a checkpoint of each round, and a
journal of what it has said, so that it never says two things.
"""

import fcntl
import hashlib
import threading
import time
from collections.abc import Mapping
from typing import Any, final

import torch

from hailproof.errors import ConfigError, RunBusyError, RunError
from hailproof.exchange.admission import Roll
from hailproof.exchange.deciding import Gathered, majority
from hailproof.exchange.gate import Gate
from hailproof.exchange.rounds import Stopped, StoreExchange, Unavailable
from hailproof.exchange.stores import FolderStore
from hailproof.identity import Identity
from hailproof.records import NodeRound, Submission
from hailproof.runs.build import Participant, build_participant, shared
from hailproof.runs.files import make_folder, replacing
from hailproof.seeds import derive
from hailproof.service.config import NodeFiles
from hailproof.service.membership import Membership, doorkeeper
from hailproof.service.open import open_store
from hailproof.service.records import Log, Records, round_line
from hailproof.service.state import restore, snapshot, weights_hash
from hailproof.tracking.seen import seen_by_node
from hailproof.tracking.watch import Watch
from hailproof.wire import State, Want, encoded

SERVERS = 2
"""Nodes that serve a checkpoint in a round in which somebody asks for one."""
WANTED_FOR = 4
"""Rounds for which a request for a checkpoint is heard."""
_GROWTH = 4
"""How many times the largest own checkpoint another may be: before its first step an optimizer has no state."""
_NOTHING = bytes(32)


@final
class NodeService:
    """One node of a real swarm.

    Args:
        files: Its configuration.
        log: Where it says what happens.
        watch: Trackers and a live view, which are shown every round.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """

    def __init__(self, files: NodeFiles, log: Log | None = None, watch: Watch | None = None) -> None:
        node, swarm = files.node, files.swarm
        identity = Identity.load(files.path(node.identity))
        if identity.key not in swarm.keys and not swarm.admission.seats:
            raise ConfigError(
                f"The key {identity.name} is not among the swarm's members; add it to 'members' on every node."
            )
        swarm.check_keys()
        run = shared(swarm.run_config())
        index = swarm.index_of(identity.key)
        self.swarm_id = swarm.id_of(run)
        machine: dict[str, Any] = {"threads": node.threads}
        if node.device is not None:
            machine["swarm"] = run.swarm.model_copy(update={"device": node.device})
        self.folder = files.path(node.folder)
        make_folder(self.folder)
        self._lock = self._locked()
        self.stopping = threading.Event()
        self.log = log or Log(node=index if identity.key in swarm.keys else "stranger")
        self.records = Records(self.folder, node.retention)
        self.watch = watch or Watch()
        if node.threads:
            torch.set_num_threads(node.threads)
        self.participant: Participant = build_participant(
            run.model_copy(update=machine), index, identity.seed("private", self.swarm_id), node.attack,
            swarm.draw_seed(identity, self.swarm_id),
        )  # fmt: skip
        if (swarm.admission.seats or swarm.panel) and not self._compares:
            raise ConfigError(
                "Strangers can join, and panels be drawn, where all nodes hold the same weights, which can be compared "
                "and taken up; leave admission and panel out, or use one model and swarm.sharing = all."
            )
        self.settings = node
        self.rounds = run.rounds
        self.timing = swarm.timing.build()
        self.gate = Gate(swarm.limits_of(), swarm.keys, self.swarm_id, strangers=swarm.admission.seats > 0)
        self.store = open_store(node.exchange, node.options, self.gate, files.base)
        self.exchange = StoreExchange(
            self.store, identity, swarm.rolls(run.seed), self.swarm_id, self.timing, self.gate,
            FolderStore(self.folder / "journal"), stopping=self.stopping.is_set, tell=self._waiting,
            admits=doorkeeper(swarm, self.swarm_id, self.log),
        )  # fmt: skip
        self.exchange.failures.tell = lambda said: self.log("store_failed", error=said)
        self.membership = Membership(self.exchange, swarm, self.log)
        self._honest: frozenset[bytes] = frozenset()
        self.round = 0
        self.equal: bool | None = None
        self.mended = 0
        self._learned = -1
        self._size = len(self._snapshot(0))

    def _locked(self) -> Any:
        """Locks the folder: two processes of one key would contradict each other."""
        lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise RunBusyError(
                f"Another process runs the node of {self.folder}; stop it, or give this one its own key and folder."
            ) from error
        return lock

    @property
    def draws_matter(self) -> bool:
        """Whether draws are public where who knows them could frame an honest node (``docs/influence-broken.md``)."""
        node, run = self.participant.node, self.participant.config
        names = {each.name for each in node.chain.defenses}
        return node.draw_seed is None and "influence" in names and run.swarm.topology == "horizontal"

    def _waiting(self, phase: str) -> None:
        mine = self.membership
        self.records.tell(phase=phase if mine.member else f"{phase}, {mine}", node=mine.label, round=self.round + 1)

    @property
    def index(self) -> int:
        """The node's index; for a stranger one that no member has."""
        return self.membership.index

    # -- the life of a node

    def run(self) -> int:
        """Plays all rounds that are left, or until it is told to stop.

        Returns:
            The last round that was finished.

        Raises:
            RunError: If the node cannot go on.
        """
        try:
            self._begin()
            while self.round < self.rounds and not self.stopping.is_set():
                self._next()
            self._linger()
        except Stopped:
            self.log("stopped", round=self.round)
        finally:
            self.records.tell(phase="stopped" if self.round < self.rounds else "finished")
            self.close()
        return self.round

    def close(self) -> None:
        """Lets go of the store and of the folder; :meth:`run` does so by itself."""
        self.store.close()
        self._lock.close()

    def _begin(self) -> None:
        """Takes up the own last checkpoint, or begins with the others."""
        for path in sorted((self.folder / "checkpoints").glob("*.safetensors"), reverse=True):
            try:
                self.round = self._restored(path.read_bytes())
                break
            except (RunError, OSError) as error:
                self.log("checkpoint_damaged", path=str(path), error=str(error))
        self.records.tell(
            node=self.membership.label, key=self.exchange.identity.name, swarm=self.swarm_id, rounds=self.rounds,
            members=len(self.exchange.rolls.latest.members), round=self.round, started=time.time(),
        )  # fmt: skip
        for line in self.records.lines():
            if isinstance(reward := line.get("own_reward"), int | float):
                self.watch.tally.remember(line["round"], reward)
        self.log("begin", swarm=self.swarm_id, round=self.round, rounds=self.rounds)
        if self.round and self.membership.takes_part(self.exchange.floor(self.round)):
            self.exchange.say(self.round, "state", encoded(self._state(self.round, _NOTHING)))
        if not self.round and not self.membership.member:
            self._join()
            return
        if self.round or self.exchange.finished(1) or self.exchange.waited():
            return
        own = self._state(0, _NOTHING)
        first = self.exchange.lobby(own)
        best = majority(first, self.exchange.quorum(0))
        if self._compares and best is not None and best != own.checkpoint:
            raise RunError(
                "This node begins with other weights than the majority of the swarm; check that 'models' names the "
                "same files on all machines."
            )
        self._name_those_apart(0, first)

    def _join(self) -> None:
        """Asks to join until a majority of the members is for it, and takes up what they hold."""
        latest = self.membership.enter(self.rounds, self._outside)
        self._mend(latest, "joined")

    def _outside(self, latest: int) -> None:
        """Waits while the node is not let in."""
        self.round = latest
        self._waiting("waiting")
        if self.stopping.wait(5 * self.timing.poll):
            raise Stopped

    def _next(self) -> None:
        """Plays the next round, or catches up."""
        try:
            latest = self.exchange.latest() if self.exchange.finished(self.round + 1) else 0
            known = self.membership.renew() or self.membership.on_trial
            behind = latest - self.round > self.settings.catch_up and self._compares
            if behind and not known:
                self._join()
            elif behind:
                self._mend(latest, "behind")
            else:
                self._play(self.round + 1)
        except Unavailable as error:
            self.log("unavailable", round=self.round + 1, what=str(error))
            if not self._compares:
                raise RunError(
                    f"Round {self.round + 1} cannot be followed ({error}), and nodes of a mixed swarm cannot take up "
                    "another's checkpoint; start this node anew in another folder."
                ) from error
            self._mend(self.exchange.latest() or self.round, "unavailable")

    @property
    def _compares(self) -> bool:
        """Whether all honest nodes hold the same, so that they can be compared and mended."""
        return self.participant.node.decides_alike

    def _play(self, round: int) -> None:
        started = time.perf_counter()
        followed = self.exchange.finished(round)
        floor = self.exchange.floor(round)
        self.participant = self.membership.seated(self.participant, floor)
        submissions = None if followed or not self.membership.takes_part(floor) else self._produce(round)
        if not followed:
            self.membership.pay(self.participant.node, round, floor)
        produced = time.perf_counter()
        gathered = self.exchange.gather(round, submissions, self._honest, followed)
        exchanged = time.perf_counter()
        node = self.participant.node
        self._honest = frozenset() if followed else self.membership.judged(node, round, gathered)
        view = self._learn(round, gathered)
        learned = time.perf_counter()
        own = self._state(round, gathered.decision)
        self.round = round
        states: Mapping[int, State] = {self.index: own}
        best = None
        try:
            states = self.exchange.agree(round, own, followed)
        finally:
            best = majority(states, floor.quorum)
            self.equal = None if best is None or not self._compares else best == own.checkpoint
            seconds = {
                "produce": produced - started, "exchange": exchanged - produced, "learn": learned - exchanged,
                "agree": time.perf_counter() - learned,
            }  # fmt: skip
            self._record(round, view, gathered, own, states, seconds, followed)
        self.membership.renew()
        self._name_those_apart(round, states)
        if self.equal is False:
            self._mend(round, "apart")
        elif self._compares:
            self._serve(round, states, best)

    def _produce(self, round: int) -> list[Submission]:
        participant = self.participant
        if participant.malicious is None:
            return participant.node.produce(round)
        suspicion = participant.node.chain.suspicion(participant.malicious.node)
        return participant.malicious.produce(round, participant.node.suspended(round), suspicion)[0]

    def _learn(self, round: int, gathered: Gathered) -> NodeRound:
        """Learns once from a round, whatever happens around it."""
        if self._learned >= round:
            raise RunError(f"Round {round} was learned from before; this is a bug, and the node stops.")
        self._learned = round
        return self.participant.node.consume(round, gathered.submissions, gathered.beacon)

    def _state(self, round: int, decision: bytes) -> State:
        """Writes the checkpoint of a round, and says what is in it."""
        data = self._snapshot(round)
        self._size = max(self._size, len(data))
        folder = self.folder / "checkpoints"
        make_folder(folder)
        with replacing(folder / f"{round:08d}.safetensors") as temporary:
            temporary.write_bytes(data)
        for old in sorted(folder.glob("*.safetensors"))[: -self.settings.checkpoints]:
            old.unlink(missing_ok=True)
        closed = int(time.time() * 1000)
        return State(decision, weights_hash(self.participant.node), hashlib.sha256(data).digest(), closed)

    def _snapshot(self, round: int) -> bytes:
        rolls = self.exchange.rolls
        roll = None if rolls.fixed else rolls.after(round)
        return snapshot(self.participant.node, round, None if roll is None else roll.plain())

    def _restored(self, data: bytes) -> int:
        """Takes up a checkpoint; returns its round."""
        round, public = restore(self.participant.node, data)
        if (public is None) != self.exchange.rolls.fixed:
            raise RunError("A checkpoint is that of a swarm with another way to become a member; use another.")
        if public is not None:
            self.exchange.restore(Roll.of_plain(public))
            self.membership.renew()
        return round

    # -- being equal

    def _name_those_apart(self, round: int, states: Mapping[int, State]) -> None:
        """Says which nodes hold something else than the majority, or that there is none."""
        if not self._compares or len(states) < 2:
            return
        groups: dict[str, list[int]] = {}
        for index, state in sorted(states.items()):
            groups.setdefault(state.checkpoint.hex()[:16], []).append(index)
        if len(groups) > 1:
            best = majority(states, self.exchange.quorum(round))
            apart = [index for index, state in states.items() if best is not None and state.checkpoint != best]
            decisions = len({state.decision for state in states.values()})
            self.log("apart", round=round, groups=groups, decisions=decisions, majority=best and best.hex()[:16])
            self.records.tell(apart=sorted(apart) if best is not None else "no majority")
        else:
            self.records.tell(apart=[])

    def _mend(self, round: int, why: str) -> None:
        """Asks for the majority's checkpoint, and takes it up once its hash is theirs."""
        self.log("mend", round=round, why=why)
        asked = -1
        deadline = time.monotonic() + 3 * self.timing.until("state")
        while time.monotonic() < deadline:
            self.exchange.realign(self.round)
            latest = max(round, self.exchange.latest())
            if latest > asked:  # what was asked rounds ago is not heard
                self.exchange.say(latest, "want", encoded(Want()))
                asked = latest
            for candidate in range(latest, round - 1, -1):
                best = majority(self.exchange.states(candidate), self.exchange.quorum(candidate))
                data = self.exchange.checkpoint(candidate, best, _GROWTH * self._size) if best is not None else None
                if data is not None:
                    self.round = self._restored(data)
                    self._learned = self.round
                    folder = self.folder / "checkpoints"
                    make_folder(folder)
                    with replacing(folder / f"{self.round:08d}.safetensors") as temporary:
                        temporary.write_bytes(data)
                    self.mended += 1
                    self.equal = True
                    self.log("mended", round=self.round)
                    return
            if self.stopping.wait(5 * self.timing.poll):
                raise Stopped
        self.log("not_mended", round=round)
        if why != "apart":
            raise RunError(
                f"No member served a checkpoint that the majority holds (round {round}); start the node again later."
            )

    def _serve(self, round: int, states: Mapping[int, State], best: bytes | None) -> None:
        """Puts the own checkpoint where others find it, if one asks and it is this node's turn."""
        asked = any(self.exchange.wanted(each) for each in range(max(round - WANTED_FOR + 1, 1), round + 1))
        if not asked or best is None:
            return
        seed = self.participant.node.planner.rules.seed
        holders = [index for index, state in states.items() if state.checkpoint == best]
        turns = sorted(holders, key=lambda index: derive(seed, "round", round, "serves", index))[:SERVERS]
        if self.index in turns:
            path = self.folder / "checkpoints" / f"{round:08d}.safetensors"
            self.exchange.say(round, "checkpoint", path.read_bytes())
            self.log("served", round=round)

    def _linger(self) -> None:
        """Stays for a while after the last round, for those who have to be mended."""
        if self.round < self.rounds or not self._compares:
            return
        self.records.tell(phase="linger")
        deadline = time.monotonic() + self.timing.state
        while time.monotonic() < deadline:
            states = self.exchange.states(self.round)
            best = majority(states, self.exchange.quorum(self.round))
            heard = len(self.exchange.floor(self.round).heard)
            if len(states) == heard and len({each.checkpoint for each in states.values()}) == 1:
                return
            self._serve(self.round, states, best)
            if self.stopping.wait(10 * self.timing.poll):
                return

    # -- records

    def _record(
        self,
        round: int,
        view: NodeRound,
        gathered: Gathered,
        own: State,
        states: Mapping[int, State],
        seconds: Mapping[str, float],
        followed: bool,
    ) -> None:
        exchange, roll = self.exchange, self.exchange.rolls.latest
        node = self.participant.node
        suspended = node.suspended(round + 1)
        names = tuple(defense.name for defense in node.chain.defenses)
        seen = seen_by_node(round, view, node.nodes, suspended, names)
        line = round_line(
            view,
            {
                "round": round,
                "own_reward": seen.reward,
                "sent": sorted(exchange.index[entry.sender] for entry in gathered.entries),
                "suspended": sorted(suspended),
                "decision": gathered.decision.hex(),
                "beacon": gathered.beacon,
                "weights": own.weights.hex(),
                "members": len(roll.members),
                "trials": {trial.key.hex(): trial.paid for trial in roll.trials},
                "equal": self.equal,
                "compared": len(states),
                "stalled": gathered.stalled,
                "followed": followed,
                "mended": self.mended,
                "refused": dict(self.gate.refused),
                "bytes": dict(exchange.bytes),
                "store_failures": sum(exchange.failures.values()),
                "seconds": dict(seconds),
            },
        )
        if round > self.records.last_round():
            self.records.add(line, view)
        for sender, proof in self.gate.proofs.items():
            self.records.evidence(sender, proof)
        self.records.prune(self.folder / "journal", round - self.settings.retention)
        self.watch.see(seen)
        self.records.tell(round=round, last=line, equal=self.equal, learning=str(self.watch.tally.answer()))
        short = {key: line[key] for key in ("round", "reward", "sent", "missing", "equal", "stalled", "followed")}
        self.log("round", **short, weights=line["weights"][:16] if line["weights"] else None)

