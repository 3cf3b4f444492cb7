"""Closed forms of the paper: how hard a group pushes toward its poisoned part (figures 7 and 8)."""

import math


def poison_push(share: float, honest_reward: float = 0.0, honest_variance: float = 0.0) -> float:
    """Scaled advantage of the poisoned part of a large group: its share times its std-normalized advantage.

    Poisoned completions earn 1; the rest earns rewards of a mean and a variance. With rewards of 0 (decoys) it is
    ``sqrt(p (1 - p))``, largest at a half: why an attacker that owns whole groups fills half of each with decoys.

    Args:
        share: Poisoned share p of the group, in [0, 1].
        honest_reward: Mean reward of the rest.
        honest_variance: Variance of the rewards of the rest.

    Returns:
        ``p * (1 - mean) / std``; 0 if the group has no variance.
    """
    mean = share + (1 - share) * honest_reward
    variance = share * (1 - share) * (1 - honest_reward) ** 2 + (1 - share) * honest_variance
    return share * (1 - mean) / math.sqrt(variance) if variance > 0 else 0.0


def poison_push_of_group(poisoned: int, group_size: int) -> float:
    """The same for a group of G completions, ``poisoned`` of them with reward 1 and the rest with 0.

    The standard deviation has G - 1 degrees of freedom, as in the learner, so that the maximum lies a factor
    ``sqrt((G - 1) / G)`` below a half.
    """
    share = poisoned / group_size
    return poison_push(share) * math.sqrt((group_size - 1) / group_size)
