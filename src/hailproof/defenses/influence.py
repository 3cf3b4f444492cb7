"""INFLUENCE: bound and test what each sender does to the weights, whatever its completions say.

Threat: a sender that teaches anything: a phrase, a false sum, rambling, or answers that ruin the model. No list of
phrases and no check of single completions is complete. But whatever is taught, the weights must be pulled that way,
again and again.

Idea: the receiver computes the gradient of each sender's completions in its own update (``learner/by_sender.py``).

* **Length.** A sender's gradient is clipped to the length of the (lower) median sender's.
* **Drift.** The difference between an honest sender's gradient and the mean of the others is chance: it points in
  another direction each round. A sender that teaches keeps a direction. ``defenses/drift.py`` tests that, with a stated
  false-alarm rate per sender and run (``alpha``), which holds however long the run is.
* **Consequence.** ``exclude``: nothing is learned from the sender for some rounds, twice as many at each further time.
  ``project``: what pulls along the sender's direction is taken out of its gradient. ``weigh``: its gradient weighs
  less as evidence grows, down to 0.

In the round after a sender was caught, its completions are rejected with marks on the words that carry its direction:
those whose probability changes most if the weights move a little that way.

``defenses/drift.py`` states the guarantee. It needs a malicious minority: if half or more of the senders collude, it
cannot know which half is honest. Nobody is excluded if that would leave fewer than ``1 - most`` of all senders.

Memory: for each sender a gradient and two directions, each as large as the trained parameters (with LoRA, the adapter).

Limits: it finds senders that differ, not senders that are malicious. A stronger model, or another one, also departs
constantly (``tolerance``). A sender under a new name has no past. Where honest senders' groups are mostly solved, the
clip is weak.

Sources: related work, where gradients travel and senders shape them freely: arXiv 2012.10333 (momentum by worker and
centered clipping), 2012.13995 (FLTrust), 1808.04866 (FoolsGold), 2207.09209 (FLDetector), 1902.06156 (the attack that
stays in the noise).
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hailproof.defenses.base import BaseDefense, token_spans
from hailproof.defenses.betting import trust
from hailproof.defenses.drift import KEPT, DriftTest
from hailproof.errors import ConfigError
from hailproof.protocols import Effect, Evidence, Need
from hailproof.records import SenderUpdate, Span, Verdict

Then = Literal["exclude", "project", "weigh"]

MEMORIES = (0.8, 0.97)
"""What a round counts for in the next one, in the directions that a sender is compared with: a short and a long
memory."""

RUN, EVERY = 1024, 8
"""The test looks at runs of so many parameters, one run in so many: an eighth of a pull shows as well as all of it."""

LIVE = 2.0
"""Times the usual share of a sender's completions that have an advantage, for which a length is allowed."""

USUAL = 0.8
"""What the earlier rounds count for in that usual share."""

PRESENT = 5
"""Rounds for which a sender that sends nothing still counts among those that others are compared with."""

REMEMBERED = 64
"""Senders whose directions are kept; of more, those that were not there for longest begin anew."""

NUDGE = 0.002
"""How far the weights go along a direction to see which words carry it, as a share of their norm."""

MARKED = 12
"""Words that are marked in a completion, at most."""

CARRIES = 0.2
"""Share of the largest change of a token's log-probability from which on a token is marked."""


@dataclass(frozen=True, slots=True)
class _Term:
    """Rounds in which nothing is learned from a sender, and the how-manieth time that is."""

    first: int
    last: int
    time: int


class InfluenceDefense(BaseDefense):
    """Clips, tests and excludes senders by what their completions do to the weights.

    Args:
        alpha: Probability with which an honest sender may ever be found to drift, per sender and run.
        then: What happens to a sender that is found to drift: ``exclude``, ``project`` or ``weigh``.
        clip: Longest gradient of a sender, in lengths of the lower median sender's; 0 switches that off.
        malicious: Malicious senders that there may be; ``None``: as many as are a minority, at least one.
        rounds: Rounds for which a sender is excluded the first time.
        most: Share of the senders that may be excluded at the same time.
        tolerance: How much honest senders may differ constantly, as where their models do: the mean advantage of one
            over another along any direction, in units of the typical difference over a block of prompts, in [0, 1).
        prompt_blocks: Blocks of prompts that each sender's gradient is computed in. More find a sender in fewer rounds,
            and make smaller passes, which take longer.
    """

    name = "influence"
    needs = frozenset[Need]({"senders", "groups", "tokens", "model"})
    gives: frozenset[Effect] = frozenset({"weights"})

    def __init__(
        self,
        alpha: float = 0.001,
        then: Then = "exclude",
        clip: float = 1.0,
        malicious: int | None = None,
        rounds: int = 10,
        most: float = 0.5,
        tolerance: float = 0.0,
        prompt_blocks: int = 4,
    ) -> None:
        super().__init__("drop")
        if not 0 < alpha < 1:
            raise ConfigError(f"Defense option alpha = {alpha} is outside (0, 1); it is a probability.")
        if then not in get_args(Then):
            raise ConfigError(f"Defense option then = {then} is unknown; use one of {', '.join(get_args(Then))}.")
        if clip < 0 or (malicious is not None and malicious < 0) or rounds < 1 or prompt_blocks < 1:
            raise ConfigError(
                "Defense influence takes a clip and malicious of 0 or more, and at least 1 of rounds and prompt_blocks."
            )
        if not 0 <= most < 1 or not 0 <= tolerance < 1:
            raise ConfigError("Defense influence takes most and tolerance in [0, 1).")
        self.alpha, self.clip, self.rounds, self.most = alpha, clip, rounds, most
        self.then: Then = then
        self.blocks, self.weighs = prompt_blocks, then != "project"
        self.test = DriftTest(alpha, malicious, tolerance, len(MEMORIES))
        self._parameters: Sequence[nn.Parameter] = ()
        self._directions: dict[int, Tensor] = {}  # [M, P] by sender, decayed sums
        self._constancy: dict[int, float] = {}  # decayed means of the cosines
        self._reference: float | None = None
        self._share: float | None = None  # of completions with an advantage, as usual
        self._terms: dict[int, _Term] = {}
        self._seen: dict[int, int] = {}  # the last round that a sender had a part in
        self._most: dict[int, float] = {}  # the most completions that a sender sends; fades
        self._own: frozenset[int] = frozenset()
        self._round = 0
        self._sent: Mapping[int, int] = {}
        self._live: Mapping[int, int] = {}
        self._sums: dict[int, Tensor] = {}
        self._along: dict[int, np.ndarray] = {}
        self._looking: list[int] = []
        self._units: Tensor | None = None

    # What a chain asks.

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """Rejects the completions of excluded senders, in the first round of that with marks on what they teach."""
        self._own = evidence.own
        out = [self._excluded(each.sender, evidence.round) for each in evidence.submissions]
        new = [index for index, term in enumerate(out) if term is not None and term.first == evidence.round]
        marks = self._marks(evidence, new)
        return [
            self._verdict(submission.sender, term, marks.get(index, ()))
            for index, (submission, term) in enumerate(zip(evidence.submissions, out, strict=True))
        ]

    def _excluded(self, sender: int, round: int) -> _Term | None:
        term = self._terms.get(sender)
        return term if term is not None and term.first <= round <= term.last else None

    def _verdict(self, sender: int, term: _Term | None, spans: tuple[Span, ...]) -> Verdict:
        enough = 1 / self.alpha
        if term is not None:
            reason = f"its sender pulls the weights one way; nothing is learned from it until round {term.last}"
            return Verdict(self.name, "reject", reason, enough, spans)
        evidence = self._evidence(sender)
        if evidence is None:
            return Verdict(self.name, "abstain", "nothing to compare the sender's gradient with yet")
        reason = f"evidence of {evidence:.3g} against its sender, where {enough:.3g} is enough"
        return Verdict(self.name, "accept", reason, evidence)

    def suspended(self, round: int) -> frozenset[int]:
        """Excluded senders, but for the first round, in which what they send is shown and marked."""
        return frozenset(s for s, term in self._terms.items() if term.first < round <= term.last)

    def suspicion(self, sender: int) -> float:
        """The evidence against a sender, as a share of what is enough."""
        return (self._evidence(sender) or 0.0) * self.alpha

    # What a learner asks.

    def bind(self, parameters: Sequence[nn.Parameter]) -> None:
        """Takes up the parameters that gradients are of; directions among others than these are forgotten."""
        self._parameters = parameters
        size = sum(each.numel() for each in parameters)
        self._directions = {s: each for s, each in self._directions.items() if each.shape == (len(MEMORIES), size)}

    def begin(self, round: int, sent: Mapping[int, int], live: Mapping[int, int]) -> None:
        """Begins an update.

        Args:
            round: The round.
            sent: Admitted completions of each sender that has any.
            live: How many of them have an advantage.
        """
        self._round, self._live = round, live
        self._sent = {sender: count for sender, count in sent.items() if self._excluded(sender, round) is None}
        self._seen |= dict.fromkeys(sent, round)
        for sender in sent.keys() | self._most.keys():
            self._most[sender] = max(sent.get(sender, 0), KEPT * self._most.get(sender, 0.0))
        self._looking = sorted(self._directions)
        units = [nn.functional.normalize(_sampled(self._directions[sender]), dim=1) for sender in self._looking]
        self._units = torch.cat(units) if units else None
        self._along = {sender: np.zeros((len(units) * len(MEMORIES), self.blocks + 1)) for sender in self._sent}

    def look(self, sender: int, block: int, gradient: Tensor) -> None:
        """Measures what was added to a sender's gradient ``[P]`` along every sender's directions."""
        if self._units is not None and sender in self._along:
            along = self._along[sender]
            so_far = (self._units @ _sampled(gradient[None])[0]).double().cpu().numpy()
            along[:, block] += so_far - along.sum(axis=1)

    def combine(self, gradients: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, SenderUpdate]]:
        """Tests every sender, and adds up what is left of the gradients."""
        self._sums = {sender: gradients[sender] for sender in self._sent if sender in gradients}
        lengths = {sender: float(self._sums[sender].norm()) if sender in self._sums else 0.0 for sender in self._sent}
        sound = sorted(sender for sender, length in lengths.items() if math.isfinite(length))
        weights = dict.fromkeys(lengths, 0.0) | self._clipped({sender: lengths[sender] for sender in sound})
        departures = self._departures(sound, weights)
        cosines = {sender: self._cosine(sender, departure) for sender, departure in departures.items()}
        self._test(sound)
        for sender, departure in departures.items():
            self._remember(sender, departure, cosines[sender] or 0.0)
        self._forget()
        caught = self._caught(sound)
        evidence = {sender: self._evidence(sender) for sender in lengths}
        total = None
        for sender in sound:
            gradient = self._sums.get(sender)
            if self.then == "exclude" and sender in caught:
                weights[sender] = 0.0
            elif self.then == "weigh" and (found := evidence[sender]) is not None:
                weights[sender] *= trust(found, self.alpha)
            if gradient is not None and weights[sender]:
                if self.then == "project" and sender in caught:
                    gradient = self._without_drift(sender, gradient)
                total = gradient * weights[sender] if total is None else total.add_(gradient, alpha=weights[sender])
        if self.then == "exclude":
            for sender in caught:
                self._exclude(sender)
        self._sums, self._units = {}, None
        return total, {
            sender: SenderUpdate(
                length=lengths[sender],
                weight=weights[sender],
                cosine=cosines.get(sender),
                evidence=evidence[sender],
                excluded=sender in caught and self.then == "exclude",
            )
            for sender in sorted(lengths)
        }

    def _clipped(self, lengths: Mapping[int, float]) -> dict[int, float]:
        """What each sender's gradient is multiplied with.

        Lengths are taken by the root of the number of completions with an advantage, as sums of independent directions
        grow, so that neither shares of slots nor luck with rewards make a sender long. Where fewer than half of the
        senders have something to say, the last reference stands in for the silent ones.

        That number counts up to :data:`LIVE` times what is usual for the (lower) median sender. An attacker can make
        all its groups half right and half wrong; where honest senders solve most of theirs, it would be allowed more
        than all of them together. Who is silent does not count as 0: else silence would shut others up.
        """
        sizes = {s: length / math.sqrt(self._live[s]) for s, length in lengths.items() if self._live[s] and length}
        if not self.clip or not sizes:
            return dict.fromkeys(lengths, 1.0)
        silent = max(0, len(lengths) // 2 + 1 - len(sizes))
        shares = [self._live[s] / self._sent[s] for s in sizes]
        shares += [self._share] * silent if self._share is not None else []
        share = statistics.median_low(shares)
        allowed = self._share = share if self._share is None else USUAL * self._share + (1 - USUAL) * share
        stand_ins = [self._reference] * silent if self._reference is not None else []
        self._reference = statistics.median_low([*sizes.values(), *stand_ins])
        limits = {
            s: self.clip * self._reference * math.sqrt(min(1.0, LIVE * allowed * self._sent[s] / self._live[s]))
            for s in sizes
        }
        return {s: min(1.0, limits[s] / sizes[s]) if s in sizes else 1.0 for s in lengths}

    def _departures(self, senders: Sequence[int], weights: Mapping[int, float]) -> dict[int, Tensor]:
        """What sets each sender's clipped gradient, per completion, apart from the mean of the others' ``[P]``."""
        heard = [sender for sender in senders if sender in self._sums]
        if len(heard) < 2:
            return {}
        scale = {sender: weights[sender] / self._sent[sender] for sender in heard}
        total = torch.zeros_like(self._sums[heard[0]])
        for sender in heard:
            total.add_(self._sums[sender], alpha=scale[sender])
        others = len(heard) - 1
        return {s: self._sums[s] * (scale[s] * (1 + 1 / others)) - total / others for s in heard}

    def _cosine(self, sender: int, departure: Tensor) -> float | None:
        """Between a departure and the sum of the earlier ones, by the long memory."""
        if sender not in self._directions:
            return None
        cosine = float(nn.functional.cosine_similarity(departure, self._directions[sender][-1], dim=0))
        return cosine if math.isfinite(cosine) else None

    def _test(self, senders: Sequence[int]) -> None:
        """Bets on every sender that has directions, with what the round's blocks do along them."""
        count = len(MEMORIES)
        for place, sender in enumerate(self._looking):
            if sender in senders:
                mine = slice(place * count, (place + 1) * count)
                along = {other: self._along[other][mine].T / self._sent[other] for other in senders}
                self.test.bet(sender, along, self._part(sender))

    def _part(self, sender: int) -> float:
        """What a sender sent, of the most that it sends."""
        return self._sent[sender] / self._most[sender]

    def _remember(self, sender: int, departure: Tensor, cosine: float) -> None:
        fading = MEMORIES[0]
        self._constancy[sender] = fading * self._constancy.get(sender, 0.0) + (1 - fading) * cosine
        length = float(departure.norm())
        if not length:
            return
        old = self._directions.get(sender)
        unit = departure * (self._part(sender) / length)
        if old is None:
            self._directions[sender] = unit.repeat(len(MEMORIES), 1)
        else:
            old.mul_(torch.tensor(MEMORIES, device=old.device)[:, None]).add_(unit)

    def _forget(self) -> None:
        """Bounds what is kept, however many names there are."""
        longest_gone = sorted(self._directions, key=lambda sender: self._seen.get(sender, 0))
        for sender in longest_gone[: max(0, len(longest_gone) - REMEMBERED)]:
            self.test.forget(sender)
            for kept in (self._directions, self._constancy, self._seen, self._most):
                kept.pop(sender, None)

    def _evidence(self, sender: int) -> float | None:
        return self.test.evidence(sender, self._present() - {sender})

    def _present(self) -> set[int]:
        """Who is there and not excluded: capital against who has left stays what it was, and would clear anybody."""
        recent = {sender for sender, last in self._seen.items() if last > self._round - PRESENT}
        return {sender for sender in recent if self._excluded(sender, self._round + 1) is None}

    def _caught(self, senders: Sequence[int]) -> list[int]:
        """Whose evidence is enough; the most constant one first, and the others are judged again without it.

        The receiver itself is never among them. An attacker sets honest senders apart from the mean as well, the other
        way and less cleanly.
        """
        caught: list[int] = []
        among = self._present()
        there = len(among) + sum(self._excluded(sender, self._round + 1) is not None for sender in self._terms)
        fewest = there - math.floor(self.most * there)
        while len(among) > fewest:
            judged = [sender for sender in senders if sender in among and sender not in self._own]
            found = {sender: self.test.evidence(sender, among - {sender}) or 0.0 for sender in judged}
            enough = [sender for sender in judged if found[sender] >= 1 / self.alpha]
            if not enough:
                break
            caught.append(max(enough, key=lambda sender: self._constancy[sender]))
            among.discard(caught[-1])
        return caught

    def _exclude(self, sender: int) -> None:
        """Nothing is learned from a sender for a while; afterwards its evidence starts anew, its direction is known."""
        time = self._terms[sender].time + 1 if sender in self._terms else 1
        length = self.rounds * 2 ** (time - 1)
        self._terms[sender] = _Term(self._round + 1, self._round + length, time)
        self.test.forget(sender)

    def _without_drift(self, sender: int, gradient: Tensor) -> Tensor:
        """A gradient less what pulls along its sender's direction."""
        direction = nn.functional.normalize(self._directions[sender][-1], dim=0)
        return gradient - direction * max(0.0, float(direction @ gradient))

    # From the drift to the words.

    def _marks(self, evidence: Evidence, indices: Sequence[int]) -> dict[int, tuple[Span, ...]]:
        """Spans of the words that carry the direction of their sender, by completion."""
        marks: dict[int, tuple[Span, ...]] = {}
        if not indices:
            return marks
        submissions, rows = evidence.submissions, evidence.rows
        for sender in sorted({submissions[index].sender for index in indices} & self._directions.keys()):
            own = [index for index in indices if submissions[index].sender == sender]
            engine = evidence.policy.engine
            before = engine.score([rows[index] for index in own], evidence.sampling)
            with self._nudged(self._directions[sender][-1]):
                engine.refresh()
                after = engine.score([rows[index] for index in own], evidence.sampling)
            engine.refresh()
            changes = [new.logprobs - old.logprobs for new, old in zip(after, before, strict=True)]
            largest = max((float(np.abs(each).max()) for each in changes if len(each)), default=0.0)
            for index, change in zip(own, changes, strict=True):
                marks[index] = self._spans(evidence.ends(index), change, largest)
        return marks

    def _spans(self, ends: np.ndarray, change: np.ndarray, largest: float) -> tuple[Span, ...]:
        strong = [i for i in np.argsort(-np.abs(change), kind="stable") if abs(change[i]) > CARRIES * largest]
        tokens = sorted(int(i) for i in strong[:MARKED])
        spans: list[Span] = []
        for span, token in zip(token_spans(ends, tokens, [""] * len(tokens)), tokens, strict=True):
            note = f"its sender makes this {'more' if change[token] > 0 else 'less'} probable"
            last = spans[-1] if spans else None
            if last is not None and last.end == span.start and last.note == note:
                spans[-1] = Span(last.start, span.end, note)
            else:
                spans.append(Span(span.start, span.end, note))
        return tuple(spans)

    @contextmanager
    def _nudged(self, direction: Tensor) -> Iterator[None]:
        """The weights a little further the way that a sender pulls them; put back bit for bit afterwards."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        size = NUDGE * math.sqrt(sum(float(each.square().sum()) for each in kept)) / float(direction.norm())
        with torch.no_grad():
            try:
                for parameter, step in zip(self._parameters, direction.split([k.numel() for k in kept]), strict=True):
                    parameter.sub_(step.view_as(parameter), alpha=size)  # a gradient points up the loss
                yield
            finally:
                for parameter, old in zip(self._parameters, kept, strict=True):
                    parameter.copy_(old)

    # What a checkpoint keeps.

    def state(self) -> dict[str, Any]:
        """Directions, evidence, terms and the reference length, with string keys as JSON has them."""
        return {
            "directions": {str(sender): each.clone() for sender, each in self._directions.items()},
            "test": self.test.state(),
            "terms": {str(sender): [term.first, term.last, term.time] for sender, term in self._terms.items()},
            "seen": {str(sender): last for sender, last in self._seen.items()},
            "most": {str(sender): most for sender, most in self._most.items()},
            "round": self._round,
            "constancy": {str(sender): each for sender, each in self._constancy.items()},
            "reference": self._reference,
            "share": self._share,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self._directions = {int(sender): each.clone().to(device) for sender, each in state["directions"].items()}
        self.test.restore(state["test"])
        self._terms = {int(sender): _Term(*map(int, term)) for sender, term in state["terms"].items()}
        self._seen = {int(sender): int(last) for sender, last in state["seen"].items()}
        self._most = {int(sender): float(most) for sender, most in state["most"].items()}
        self._round = int(state["round"])
        self._constancy = {int(sender): float(each) for sender, each in state["constancy"].items()}
        self._reference, self._share = (
            None if state[name] is None else float(state[name]) for name in ("reference", "share")
        )


def _sampled(rows: Tensor) -> Tensor:
    """The part of some vectors ``[N, P]`` that the test looks at; all of them if they are short."""
    size = rows.shape[1]
    if size < RUN * EVERY:
        return rows
    whole = size - size % (RUN * EVERY)
    return rows[:, :whole].unflatten(1, (-1, EVERY, RUN))[:, :, 0].flatten(1)
