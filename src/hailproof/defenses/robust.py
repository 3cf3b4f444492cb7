"""ROBUST: the known rules of robust aggregation, on gradients that the receiver computes of each sender's completions.

Idea: these rules were made for federated learning, where gradients travel. Here they are baselines for ``influence``.
Each looks at one round only, except ``centered_clipping``, which remembers. None excludes a sender for longer.

* ``median`` and ``trimmed_mean``: by coordinate (Yin et al. 2018, arXiv 1803.01498);
* ``geometric_median``: by Weiszfeld's steps (Pillutla et al. 2019, arXiv 1912.13445);
* ``krum``: the gradient that is nearest to its nearest (Blanchard et al. 2017, arXiv 1703.02757);
* ``fltrust``: what agrees with the receiver's own gradient, as long as that is (Cao et al. 2020, arXiv 2012.13995).
  The root is the receiver's own completions of the round, where the paper has a small clean data set. Nodes decide
  differently;
* ``centered_clipping``: momenta of senders, clipped around the last result (Karimireddy et al. 2020, arXiv
  2012.10333). The radius is the median distance, where the paper has a constant.

A deviation from all of them: gradients are taken per completion, so that a sender's share of slots is not its weight.

Limits: only the last one asks whether a departure lasts. They are not measured in whole runs.

Sources: by rule, above.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hailproof.defenses.base import BaseDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Evidence, Need
from hailproof.records import SenderUpdate, Verdict

Rule = Literal["median", "trimmed_mean", "geometric_median", "krum", "fltrust", "centered_clipping"]

WEISZFELD = 16
"""Steps toward the geometric median."""

CENTERINGS = 3
"""Steps of centered clipping in a round."""

MOMENTUM = 0.9
"""Of each sender's gradient, for centered clipping."""

TINY = 1e-12


class RobustDefense(BaseDefense):
    """Accepts every completion, and goes by a robust mean of the senders' gradients.

    Args:
        rule: Which mean.
        malicious: Malicious senders that it shall stand, for ``trimmed_mean`` and ``krum``; ``None``: a quarter, at
            least one.
    """

    name = "robust"

    def __init__(self, rule: Rule = "median", malicious: int | None = None) -> None:
        super().__init__()
        if rule not in get_args(Rule):
            raise ConfigError(f"Defense option rule = {rule} is unknown; use one of {', '.join(get_args(Rule))}.")
        if malicious is not None and malicious < 0:
            raise ConfigError(f"Defense option malicious = {malicious} is below 0; it is a number of senders.")
        self.rule: Rule = rule
        self.malicious = malicious
        self.needs = frozenset[Need]({"senders", "own"} if rule == "fltrust" else {"senders"})
        self._own: frozenset[int] = frozenset()
        self._sent: Mapping[int, int] = {}
        self._momenta: dict[int, Tensor] = {}
        self._center: Tensor | None = None

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """An abstention for each: gradients are looked at, and not texts."""
        self._own = evidence.own
        return [Verdict(self.name, "abstain", "looks at the gradients of senders")] * len(evidence.submissions)

    weighs = False
    """Its rules do not add gradients up."""

    @property
    def blocks(self) -> int:
        """One: rules look at whole gradients."""
        return 1

    def bind(self, parameters: Sequence[nn.Parameter]) -> None:
        """Takes up nothing: no rule looks at the weights."""

    def begin(self, round: int, sent: Mapping[int, int], live: Mapping[int, int]) -> None:
        """Begins an update; ``sent`` are the admitted completions by sender."""
        self._sent = sent

    def look(self, sender: int, block: int, gradient: Tensor) -> None:
        """Looks at nothing on the way."""

    def combine(self, gradients: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, SenderUpdate]]:
        """Goes by the rule; what is no number is left out before."""
        lengths = {sender: float(gradients[sender].norm()) if sender in gradients else 0.0 for sender in self._sent}
        sound = [sender for sender in sorted(lengths) if math.isfinite(lengths[sender])]
        total = None
        if any(lengths[sender] for sender in sound):
            empty = torch.zeros_like(next(iter(gradients.values())))
            each = torch.stack([gradients.get(sender, empty) / self._sent[sender] for sender in sound])
            total = self._mean(sound, each) * sum(self._sent.values())
        return total, {
            sender: SenderUpdate(length=lengths[sender], weight=float(sender in sound)) for sender in sorted(lengths)
        }

    def _mean(self, senders: Sequence[int], gradients: Float[Tensor, "S P"]) -> Float[Tensor, " P"]:
        malicious = max(1, len(senders) // 4) if self.malicious is None else self.malicious
        match self.rule:
            case "trimmed_mean":
                return trimmed_mean(gradients, malicious)
            case "krum":
                return gradients[krum(gradients, malicious)]
            case "fltrust":
                own = [place for place, sender in enumerate(senders) if sender in self._own]
                return fltrust(gradients, own)
            case "centered_clipping":
                return self._centered(senders, gradients)
        simple: dict[str, Callable[[Tensor], Tensor]] = {"median": median, "geometric_median": geometric_median}
        return simple[self.rule](gradients)

    def _centered(self, senders: Sequence[int], gradients: Float[Tensor, "S P"]) -> Float[Tensor, " P"]:
        for sender, gradient in zip(senders, gradients, strict=True):
            old = self._momenta.get(sender)
            self._momenta[sender] = gradient if old is None else MOMENTUM * old + (1 - MOMENTUM) * gradient
        momenta = torch.stack([self._momenta[sender] for sender in senders])
        self._center = centered_clipping(momenta, median(momenta) if self._center is None else self._center)
        return self._center

    def state(self) -> dict[str, Any]:
        """Momenta by sender and the last result, of ``centered_clipping``."""
        return {
            "momenta": {str(sender): each.clone() for sender, each in self._momenta.items()},
            "center": None if self._center is None else self._center.clone(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._momenta = {int(sender): each.clone() for sender, each in state["momenta"].items()}
        self._center = None if state["center"] is None else state["center"].clone()


def median(gradients: Float[Tensor, "S P"]) -> Float[Tensor, " P"]:
    """The middle by coordinate; of an even number the mean of the two."""
    return trimmed_mean(gradients, (len(gradients) - 1) // 2)


def trimmed_mean(gradients: Float[Tensor, "S P"], malicious: int) -> Float[Tensor, " P"]:
    """The mean by coordinate without so many at either end; at least one or two are kept."""
    ends = min(malicious, (len(gradients) - 1) // 2)
    return gradients.sort(dim=0).values[ends : len(gradients) - ends].mean(dim=0)


def geometric_median(gradients: Float[Tensor, "S P"]) -> Float[Tensor, " P"]:
    """The point whose distances to all have the smallest sum, by Weiszfeld's steps from the mean."""
    center = gradients.mean(dim=0)
    for _ in range(WEISZFELD):
        weights = 1 / (gradients - center).norm(dim=1).clamp(min=TINY)
        center = (weights[:, None] * gradients).sum(dim=0) / weights.sum()
    return center


def krum(gradients: Float[Tensor, "S P"], malicious: int) -> int:
    """The place of the gradient whose nearest ``S - malicious - 2``, at least one, are nearest."""
    distances = torch.cdist(gradients[None], gradients[None], compute_mode="donot_use_mm_for_euclid_dist")[0].square()
    nearest = max(1, len(gradients) - malicious - 2)
    return int(distances.sort(dim=1).values[:, 1 : nearest + 1].sum(dim=1).argmin())


def fltrust(gradients: Float[Tensor, "S P"], own: Sequence[int]) -> Float[Tensor, " P"]:
    """The mean of what agrees with the mean of the own ones, by cosine, each as long as that; zero without own ones."""
    root = gradients[list(own)].mean(dim=0) if own else torch.zeros_like(gradients[0])
    trust = nn.functional.cosine_similarity(gradients, root[None], dim=1).clamp(min=0)
    units = nn.functional.normalize(gradients, dim=1)
    return root.norm() * (trust[:, None] * units).sum(dim=0) / trust.sum().clamp(min=TINY)


def centered_clipping(gradients: Float[Tensor, "S P"], center: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """The center, moved by the mean of the differences from it, each clipped to the lower median distance."""
    for _ in range(CENTERINGS):
        differences = gradients - center
        lengths = differences.norm(dim=1)
        factors = (lengths.median() / lengths.clamp(min=TINY)).clamp(max=1.0)
        center = center + (factors[:, None] * differences).mean(dim=0)
    return center
