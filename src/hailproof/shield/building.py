"""What a shield is built of: each part is checked against what its chain needs, and what is missing is said."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from hailproof.defenses.base import BaseDefense
from hailproof.defenses.chain import Chain, with_option
from hailproof.errors import ConfigError
from hailproof.protocols import Codec, Need, Sampling
from hailproof.shield.chains import advice

if TYPE_CHECKING:
    from hailproof.policies.causal_lm import CausalLM
    from hailproof.shield.senders import SenderPasses


def check_needs(
    chain: Chain, *, model: Any, tokenizer: Any, anchor: Any, brings: Collection[str], knows_itself: bool
) -> None:
    """Makes sure that a chain gets what it needs.

    Args:
        chain: The chain.
        model: The model, if there is one.
        tokenizer: Its tokenizer, if there is one.
        anchor: The model as it was, if it is given.
        brings: What each batch will bring.
        knows_itself: Whether the receiver's own name is known.

    Raises:
        ConfigError: If something is missing; it names the defense, and what to give.
    """
    if model is not None and tokenizer is None and not isinstance(model, str) and not hasattr(model, "codec"):
        raise ConfigError("model is given without its tokenizer; give tokenizer= too.")
    read = model is not None
    has: dict[Need, bool] = {
        "model": read,
        "anchor": read or anchor is not None,
        "tokens": read or tokenizer is not None or "ids" in brings,
        "own": knows_itself and "senders" in brings,
        "senders": "senders" in brings,
        "groups": "groups" in brings or read,  # a model needs prompts, and equal prompts make a group
        "keys": "keys" in brings,
    }
    for defense in chain.defenses:
        lacking: list[Need] = sorted(need for need in defense.needs if not has.get(need))
        if lacking:
            named = with_option(defense, lacking)
            raise ConfigError(f"Defense {named} needs {' and '.join(lacking)}; {advice(lacking)}.")


def check_sampling(chain: Chain, sampling: Sampling | None) -> None:
    """Makes sure that it is known how completions are drawn, where a defense checks that.

    Raises:
        ConfigError: If it is not, or if a defense has nothing to do under the length limit.
    """
    for defense in chain.defenses:
        if sampling is None and getattr(defense, "reads_sampling", False):
            raise ConfigError(
                f"Defense {defense.name} checks how completions are drawn; give sampling=Sampling(temperature, "
                "top_k, top_p, max_new_tokens) with the trainer's own settings."
            )
        if sampling is not None and isinstance(defense, BaseDefense):
            defense.check_limit(sampling.max_new_tokens)


def readers(model: Any, tokenizer: Any) -> "tuple[CausalLM | None, Codec | None]":
    """What reads tokens: a policy with its codec, a codec alone, or nothing.

    Raises:
        HailproofError: If they do not fit, or the model cannot be read.
    """
    if model is None and tokenizer is None:
        return None, None
    from hailproof.shield.models import codec_of, policy_of  # loads torch, which many chains do without

    if model is None:
        return None, codec_of(tokenizer)
    policy = policy_of(model, tokenizer)
    return policy, policy.codec


def sender_passes(chain: Chain, policy: "CausalLM | None", model: Any) -> "SenderPasses | None":
    """What looks at the gradients of senders, if a defense asks for that.

    Raises:
        ConfigError: If the defense does not weigh senders, or nobody trains the model.
    """
    defense = chain.aggregation
    if defense is None or policy is None:
        return None
    if not getattr(defense, "weighs", False):
        raise ConfigError(
            f"Defense {defense.name}, as it is built here, replaces the gradient of an update, which only a node of "
            "hailproof can do; choose influence, which weighs senders."
        )
    if isinstance(model, str):
        raise ConfigError(
            f"Defense {defense.name} looks at what senders do to a model in training, but {model!r} is only a name; "
            "give the model that the trainer trains."
        )
    from hailproof.shield.senders import SenderPasses

    return SenderPasses(policy, defense.name, defense)


def anchored(
    chain: Chain, policy: "CausalLM | None", anchor: Any, tokenizer: Any, nobody_trains: bool
) -> "CausalLM | None":
    """The model as it was before training, if a defense asks for it.

    Args:
        chain: The chain.
        policy: The model that is trained.
        anchor: The model as it was, if it is given; else it is as it is now.
        tokenizer: The tokenizer.
        nobody_trains: Whether the model stays as it is, so that it is its own anchor.
    """
    if "anchor" not in chain.needs:
        return None
    from hailproof.shield.models import frozen_copy, policy_of

    if anchor is not None:
        return policy_of(anchor, tokenizer)
    assert policy is not None
    return policy if nobody_trains else frozen_copy(policy)
