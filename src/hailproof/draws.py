"""What a draw is, so that anybody can repeat it: Gumbel-max sampling with noise that is a function of public labels.

The token at a place is the argmax over the allowed candidates of ``logit / T + g``, with ``g = Gumbel(hash(key,
position, token))``. That draws from exactly the softmax over the candidates (Maddison et al. 2014, arXiv 1411.0030). A
verifier needs of a model only the k + 1 largest logits and the claimed token's own (``protocols.Candidates``).

``policies/sampling.py`` holds the same noise for tensors; a test keeps the two equal.
"""

import math

import numpy as np

from hailproof.protocols import Candidates, Sampling

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
"""Constants of splitmix64 (Steele, Lea, Flood 2014)."""


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64; 64-bit arithmetic wraps around."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(MIX_2)
    return x ^ (x >> np.uint64(31))


def gumbel_noise(keys: np.ndarray, positions: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise for candidate tokens.

    Args:
        keys: ``[T]`` the key of the completion that each place belongs to.
        positions: ``[T]`` index of each place within its completion, from 0.
        token_ids: ``[T, K]`` the candidates.

    Returns:
        ``[T, K]`` float64.
    """
    roots, places, ids = (np.asarray(part).astype(np.uint64) for part in (keys, positions, token_ids))
    stream = _mix(_mix(roots) + (places + np.uint64(1)) * np.uint64(GOLDEN))
    bits = _mix(_mix(stream[:, None] + (ids + np.uint64(1)) * np.uint64(GOLDEN)))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def wanted(sampling: Sampling, vocabulary: int = 1 << 62) -> int:
    """How many candidates :func:`shortfalls` needs at each place: one more than may be drawn, to show the border."""
    return min(sampling.top_k + 1 if sampling.top_k else vocabulary, vocabulary)


def shortfalls(
    found: Candidates, token_ids: np.ndarray, keys: np.ndarray, positions: np.ndarray, sampling: Sampling
) -> np.ndarray:
    """By how many nats over the temperature the logits must be off for each token to be the draw; 0 for the draw.

    A candidate that beats the token is explained away by what it beats it by, or by what it lies above the border of
    the top-k or top-p by: rounding that carries it over the border takes it out of the draw, however large its noise.
    A token outside the limits lies at least as far below as it must rise to come inside. So a tie, at the border too,
    is as small as the rounding that caused it.

    Args:
        found: What the verifier's model says at each place; :func:`wanted` says how many candidates it holds.
        token_ids: ``[T]`` the claimed tokens.
        keys: ``[T]`` the public key of the completion that each place belongs to.
        positions: ``[T]`` index of each place within its completion, from 0.
        sampling: How honest nodes draw.

    Returns:
        ``[T]`` float64; a token that no draw can give has ``inf``, one whose logits are no numbers has ``nan``.
    """
    logits, own = found.logits.astype(np.float64), found.own.astype(np.float64)
    if sampling.temperature == 0:
        return logits.max(axis=-1) - own
    order = np.argsort(-logits, axis=-1, kind="stable")
    values = np.take_along_axis(logits, order, axis=-1) / sampling.temperature
    ids, value = np.take_along_axis(found.ids, order, axis=-1), own / sampling.temperature
    inside, outside = _border(values, value, min(sampling.top_k or values.shape[-1], values.shape[-1]), sampling.top_p)
    noisy = value + gumbel_noise(keys, positions, np.asarray(token_ids)[:, None])[:, 0]
    with np.errstate(invalid="ignore"):  # inf - inf: a barred token beside a barred candidate
        ahead = values + gumbel_noise(keys, positions, ids) - noisy[:, None]
    obliged = np.where(np.isneginf(values), -np.inf, np.minimum(ahead, inside))  # what is barred obliges nobody
    return np.maximum(np.maximum(obliged.max(axis=-1), outside), 0.0)


def masses(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of candidates in descending order, the probability of each and that of all before it, which top-p asks about."""
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities, probabilities.cumsum(axis=-1) - probabilities


def _border(values: np.ndarray, value: np.ndarray, k: int, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """By how many nats logits must be off for candidates to fall out of the draw, and for a token to come into it.

    To cross the border of top-p, a token changes places with the first one beyond it, or the border itself moves: if
    logits above it rise by d and those below fall by d, the log-odds of the mass above change by 2 d.

    Args:
        values: ``[T, K]`` the largest logits over the temperature, in descending order: k, and one more if there is.
        value: ``[T]`` that of the token.
        k: Of top-k.
        top_p: Of top-p.
    """
    inside, outside = np.full_like(values, np.inf), np.full_like(value, -np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        if values.shape[-1] > k:
            inside, outside = values - values[:, k:], values[:, k - 1] - value
        if top_p < 1:
            candidates, odds = values[:, :k], math.log(top_p / (1 - top_p))
            probabilities, mass_above = masses(candidates)
            allowed = mass_above < top_p
            lowest = np.where(allowed, candidates, np.inf).min(axis=-1)
            highest = np.where(allowed, -np.inf, candidates).max(axis=-1)
            moves = (odds - _log_odds(mass_above)) / 2
            inside[:, :k] = np.minimum(inside[:, :k], np.minimum(candidates - highest[:, None], moves))
            mass_above = (probabilities * (candidates > value[:, None])).sum(axis=-1)
            moves = (_log_odds(mass_above) - odds) / 2
            outside = np.maximum(outside, np.minimum(lowest - value, moves))
    return inside, outside


def _log_odds(share: np.ndarray) -> np.ndarray:
    share = share.clip(0, 1)
    return np.log(share) - np.log1p(-share)
