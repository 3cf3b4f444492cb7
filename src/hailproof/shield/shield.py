"""The shield: a chain of defenses behind one call, for any trainer that learns from completions of others.

    shield = Shield("heterogeneous", model=model, tokenizer=tokenizer, brings={"senders"})
    result = shield.screen(prompts=prompts, completions=completions, completion_ids=ids, rewards=rewards)
    train_on(result.rewards, result.weights, result.masks)

What a chain lacks is said when the shield is built. A caller's mistake raises ``ConfigError``; whatever strangers wrote
is a verdict.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, final, get_args

from hailproof.errors import ConfigError
from hailproof.protocols import Sampling, Variant
from hailproof.shield import memory
from hailproof.shield.asking import asked, evidence_of, rows_of
from hailproof.shield.batch import MAX_CHARACTERS, Batch, Reader
from hailproof.shield.building import anchored, check_needs, check_sampling, readers, sender_passes
from hailproof.shield.chains import Named, chain_of, flat, notes_of, variant_of
from hailproof.shield.noticing import idle_noticed, names_noticed
from hailproof.shield.results import Screened, ScreenedRow, Sender
from hailproof.shield.rows import Text, round_of, sender_of, whole

if TYPE_CHECKING:
    from rich.console import Console

    from hailproof.tracking import Tracker
    from hailproof.tracking.live import LiveView
    from hailproof.tracking.watch import Watch

Brings = Literal["ids", "senders", "groups", "keys"]
"""What a trainer can hand to ``screen`` besides texts and rewards."""

VERSION = 2
"""Of the form of a saved state."""


@final
class Shield:
    """Screens batches of completions with a chain of defenses.

    Args:
        *defenses: In the order in which they are asked: names, presets, names with options, or defenses.
        model: The model that is trained, in its present weights, wrapped or not (PEFT, DDP, accelerate, compiled); or
            the name of a model. It is read, and left as it was.
        tokenizer: Its tokenizer, or a processor with one.
        anchor: The model as it was before training, where a defense needs it; by default a frozen copy of ``model`` as
            it is now. Weights that are frozen under an adapter are not copied.
        sampling: How honest completions are drawn, for defenses that check it.
        variant: Whether answers are reasoning with a number, or programs; by default what the chain reads.
        own: The name of the receiver itself among the senders; its completions are compared with, not judged.
        brings: What each call of ``screen`` will bring besides texts and rewards: ``ids``, ``senders``, ``groups``,
            ``keys``.
        multi_turn: Whether completions hold turns of tools or users, so that end tokens stand inside them.
        max_characters: A longer completion is rejected unread.

    Attributes:
        chain: The defenses.
        round: Number of the last batch.
        notes: What its presets count on that only the trainer can do.
        guarded: The reward functions that :meth:`guard` made last, if it did.

    Raises:
        ConfigError: If a name or option is wrong, or the chain lacks something.
        ModelError: If the model cannot be read.
    """

    def __init__(
        self,
        *defenses: Named | Iterable[Named],
        model: Any = None,
        tokenizer: Any = None,
        anchor: Any = None,
        sampling: Sampling | None = None,
        variant: Variant | None = None,
        own: Sender | None = None,
        brings: Iterable[Brings] = (),
        multi_turn: bool = False,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        named = list(flat(defenses))
        self.chain = chain_of(named)
        self.brings = frozenset(brings)
        unknown = self.brings - {*get_args(Brings)}
        if unknown:
            raise ConfigError(f"brings names {sorted(unknown)[0]!r}; it takes ids, senders, groups and keys.")
        if max_characters < 1:
            raise ConfigError(f"max_characters = {max_characters} reads nothing; give at least 1.")
        self.own = None if own is None else sender_of("own", own)
        self.variant: Variant = variant_of(self.chain, variant)
        check_needs(
            self.chain,
            model=model,
            tokenizer=tokenizer,
            anchor=anchor,
            brings=self.brings,
            knows_itself=self.own is not None,
        )
        check_sampling(self.chain, sampling)
        self.sampling = sampling or Sampling()
        self.policy, self.codec = readers(model, tokenizer)
        self._reader = Reader(
            policy=self.policy,
            codec=self.codec,
            needs_tokens="tokens" in self.chain.needs,
            multi_turn=multi_turn,
            max_characters=max_characters,
        )
        self._passes = sender_passes(self.chain, self.policy, model)
        self.anchor = anchored(self.chain, self.policy, anchor, tokenizer, nobody_trains=isinstance(model, str))
        self.round = 0
        self.guarded: Any = None
        self._watch: Watch | None = None
        self.notes = tuple(notes_of(named))
        self._senders: dict[Sender, int] = {}

    def screen(
        self,
        *,
        prompts: Iterable[Text] | None = None,
        completions: Iterable[Text] | None = None,
        completion_ids: Iterable[Sequence[int]] | None = None,
        rewards: Iterable[Any] | None = None,
        senders: Iterable[Sender] | None = None,
        groups: Iterable[Sender] | None = None,
        prompt_ids: Iterable[Sequence[int]] | None = None,
        slot_keys: Iterable[int] | None = None,
        finished: Iterable[bool] | None = None,
        missing: Mapping[Sender, int] | None = None,
        beacon: int | None = None,
        round: SupportsIndex | None = None,
    ) -> Screened:
        """Screens a batch of N completions.

        Args:
            prompts: ``[N]`` what was asked: texts, or lists of messages.
            completions: ``[N]`` texts, or lists of messages. Where ids and a tokenizer are given, what is screened is
                the text that the ids say, since that is what will be learned; then they may be left out.
            completion_ids: ``[N]`` token ids as they will be trained on, padding left out.
            rewards: ``[N]`` the receiver's own rewards; ``None`` or NaN leaves a row out. Without rewards each row
                counts as fully rewarded, 1.0.
            senders: ``[N]`` who sent each.
            groups: ``[N]`` which rows answer the same prompt; by default those of equal prompts or prompt ids.
            prompt_ids: ``[N]`` token ids of the prompts as they will be trained on; by default the tokenizer's of the
                prompts, messages by the chat template.
            slot_keys: ``[N]`` the public key of each slot's randomness (``hailproof.rollouts.completion_key``).
            finished: ``[N]`` whether each ended by itself; by default whether its ids end with an end token.
            missing: By sender, how many completions that it owed did not come.
            beacon: Public randomness that nobody knew before all had sent.
            round: Number of the batch, from 1, larger in each call; by default one more than that of the last. What is
                left out are rounds in which nothing came. A batch that is screened in parts needs no numbers: each
                part is a round.

        Raises:
            ConfigError: If the arguments do not fit together, or something is missing that the chain was promised.
        """
        number = self.round + 1 if round is None else round_of(round, self.round)
        batch = Batch.of(
            self._reader,
            prompts=prompts,
            completions=completions,
            completion_ids=completion_ids,
            rewards=rewards,
            senders=senders,
            groups=groups,
            prompt_ids=prompt_ids,
            slot_keys=slot_keys,
            finished=finished,
        )
        self._check_brought(batch)
        new, first = {each for each in batch.senders or () if each not in self._senders}, not self._senders
        owed = {self._number(sender_of("missing", name)): count for name, count in (missing or {}).items()}
        self._move_anchor()
        evidence = evidence_of(
            batch,
            round=number,
            number=self._number,
            sampling=self.sampling,
            variant=self.variant,
            policy=self.policy,
            anchor=self.anchor,
            own=self.own,
            missing=owed,
            beacon=beacon,
        )
        screening = asked(self.chain, evidence, self._passes)
        self.round = number
        bounding = None if self._passes is None else self._passes.name
        rows = rows_of(batch, screening, self.chain.admissions, bounding)
        result = Screened(number, rows, self.suspended(), screening.seconds, self._noticed(rows, new, first))
        if self._watch is not None:
            names = tuple(defense.name for defense in self.chain.defenses)
            self._watch.see(result.seen(() if rewards is None else batch.rewards, self.own, names))
        return result

    def track(self, tracker: "Tracker") -> None:
        """Gives the figures of each batch to a tracker from now on; whoever opened it closes it.

        Args:
            tracker: Anything with ``log(step, numbers)`` and ``close()``, as ``hailproof.tracking.open_tracker`` gives.
                One that fails is left out from then on.
        """
        self._watched().trackers.append(tracker)

    def live(self, rounds: int | None = None, console: "Console | None" = None) -> "LiveView":
        """A live view of the batches, in the terminal while it is open: ``with shield.live(): train()``.

        Args:
            rounds: Batches that will come, if that is known.
            console: Where it is shown; by default the terminal.
        """
        from hailproof.tracking.live import LiveView

        view = LiveView(rounds, console)
        self._watched().views.append(view)
        return view

    def _watched(self) -> "Watch":
        from hailproof.tracking.watch import Watch

        if self._watch is None:
            self._watch = Watch()
        return self._watch

    def suspended(self) -> frozenset[Sender]:
        """Senders that some defense wants to send nothing in the next round."""
        names = {number: name for name, number in self._senders.items()}
        return frozenset(names[each] for each in self.chain.suspended(self.round + 1) if each in names)

    def _check_brought(self, batch: Batch) -> None:
        """Makes sure that a batch has what the shield was promised when it was built."""
        has = {
            "ids": batch.given_ids,
            "senders": batch.senders is not None,
            "groups": batch.groups is not None,
            "keys": batch.keys is not None,
        }
        called = {"ids": "completion_ids", "groups": "groups or prompts", "keys": "slot_keys"}
        for need in sorted(self.brings):
            if not has[need]:
                raise ConfigError(f"The shield was built with brings={{{need!r}}}; give {called.get(need, need)}.")

    def _move_anchor(self) -> None:
        """Brings the anchor to where the model is: trainers move a model after it was made."""
        if self.anchor is not None and self.policy is not None:
            device = self.policy.model.device
            if self.anchor.model.device != device:
                self.anchor.model.to(device)  # pyright: ignore[reportArgumentType] - the library's decorator hides self

    def _noticed(self, rows: Sequence[ScreenedRow], new: Collection[Sender], first: bool) -> tuple[str, ...]:
        """What is to be said of the senders of a batch, if the chain goes by senders."""
        if "senders" not in self.chain.needs:
            return ()
        notes = [names_noticed(rows, new, first, self.own)]
        if self._passes is not None:
            notes += idle_noticed(rows, self.own)
        return tuple(note for note in notes if note)

    def _number(self, sender: Sender) -> int:
        """The number that a sender has in records; the same in all rounds."""
        return self._senders.setdefault(sender, len(self._senders))

    def guard(self, reward_funcs: Callable[..., Any] | Sequence[Callable[..., Any]], **options: Any) -> Any:
        """Reward functions for TRL that return ``None`` for what is left out; see ``integrations/trl.py``."""
        from importlib import import_module

        # The seams of trainers lie in a layer above: looked up only when somebody asks.
        return import_module("hailproof.integrations.trl").guard(self, reward_funcs, **options)

    def attach(self, trainer: Any) -> None:
        """Lets a ``GRPOTrainer`` of TRL with guarded rewards mute tokens; see ``integrations/trl.py``."""
        from importlib import import_module

        import_module("hailproof.integrations.trl").attach(self, trainer)

    def state(self) -> dict[str, Any]:
        """What is remembered between batches, in types that JSON has."""
        return {
            "version": VERSION,
            "round": self.round,
            "senders": list(self._senders),
            "defenses": {name: memory.as_plain(state) for name, state in self.chain.state().items()},
            "anchor": self._anchor_print(),
        }

    def _anchor_print(self) -> str | None:
        """Which weights the anchor holds; ``None`` without one."""
        if self.anchor is None:
            return None
        from hailproof.shield.models import fingerprint

        return fingerprint(self.anchor)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave; nothing has changed if it raises.

        Raises:
            ConfigError: If it is the state of another chain or anchor, or damaged.
        """
        if not isinstance(state, Mapping) or state.get("version") != VERSION:
            raise ConfigError("This is no state of a shield of this version; give what state() or save() made.")
        names, own = list(state.get("defenses") or ()), [defense.name for defense in self.chain.defenses]
        if names != own:
            raise ConfigError(f"The state is of the chain {', '.join(names)}; build that one, not {', '.join(own)}.")
        if state.get("anchor") != self._anchor_print():
            raise ConfigError(
                "The state was saved with another anchor; give anchor= the model as it was when training began."
            )
        before = self.chain.state()
        try:
            senders = {sender_of("senders", name): number for number, name in enumerate(state["senders"])}
            round = whole(state["round"])
            if round is None or round < 0:
                raise ValueError(f"{state['round']!r:.80} is no number of a round")
            self.chain.restore({name: memory.from_plain(saved) for name, saved in state["defenses"].items()})
        except Exception as error:  # a defense of somebody else's may raise anything on what it did not write
            self.chain.restore(before)
            raise ConfigError(f"The state is damaged ({type(error).__name__}: {error}); take an older one.") from error
        self._senders, self.round = senders, round

    def save(self, path: str | Path) -> None:
        """Writes the state to a file, whole or not at all.

        Raises:
            ConfigError: If it cannot be written.
        """
        memory.write(Path(path), self.state())

    def load(self, path: str | Path) -> None:
        """Takes up the state that :meth:`save` wrote.

        Raises:
            ConfigError: If it is none of this chain.
        """
        self.restore(memory.read(Path(path)))

    def __repr__(self) -> str:
        reader = "" if self.policy is None else f", model={self.policy.name!r}"
        return f"Shield({', '.join(repr(each.name) for each in self.chain.defenses)}{reader}, round={self.round})"
