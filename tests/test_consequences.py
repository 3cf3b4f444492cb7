"""What verdicts lead to, by hand; what a chain asks of its caller."""

import pytest

from hailproof.consequences import consequence
from hailproof.defenses.base import BaseDefense
from hailproof.defenses.chain import UNSCREENED, Chain
from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.evidence import Received
from hailproof.defenses.imports import ImportsDefense
from hailproof.defenses.length import LengthDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.defenses.reward_outlier import RewardOutlierDefense
from hailproof.defenses.self_judge import SelfJudgeDefense
from hailproof.defenses.sender_stats import SenderStatsDefense
from hailproof.defenses.token_credit import TokenCreditDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Admission
from hailproof.records import Verdict

ADMISSIONS: dict[str, Admission] = {"drops": "drop", "zeroes": "zero_reward"}
DROP, ZERO = Verdict("drops", "reject", ""), Verdict("zeroes", "reject", "")
GOOD, SILENT = Verdict("drops", "accept", ""), Verdict("zeroes", "abstain", "")


@pytest.mark.parametrize(
    ("reward", "verdicts", "expected"),
    [
        (1.0, [], 1.0),
        (1.0, [GOOD, SILENT], 1.0),
        (0.0, [GOOD], 0.0),
        (1.0, [DROP], None),
        (1.0, [ZERO], 0.0),
        (1.0, [ZERO, DROP], 0.0),  # the first rejection decides
        (1.0, [DROP, ZERO], None),
        (None, [], None),  # nobody computed it, so it is no 0
        (None, [DROP], None),
        (None, [ZERO], 0.0),
    ],
)
def test_the_first_rejection_decides(reward, verdicts, expected):
    assert consequence(reward, verdicts, ADMISSIONS).reward == expected


def test_weights_multiply_and_muted_tokens_add_up():
    spoken = [
        Verdict("drops", "accept", "", weight=0.5, muted=(1, 2)),
        Verdict("zeroes", "abstain", "", weight=0.5, muted=(2, 7)),
    ]
    fate = consequence(1.0, spoken, ADMISSIONS)
    assert (fate.weight, fate.muted) == (0.25, frozenset({1, 2, 7}))


def test_a_rejection_of_nobody_is_a_mistake():
    with pytest.raises(KeyError):
        consequence(1.0, [Verdict("stranger", "reject", "")], ADMISSIONS)


TEXTS = Received.texts(["<think>2 + 2 = 5</think><answer>5</answer>"])


@pytest.mark.parametrize(
    ("defense", "lacks"),
    [
        (LogitDefense(), "model and tokens"),
        (ReplayDefense(), "keys and model and senders and tokens"),
        (TokenCreditDefense(), "anchor and model and tokens"),
        (TokenCreditDefense(rule="policy"), "model and tokens"),
        (SelfJudgeDefense(), "model"),
        (LengthDefense(cap=9), "tokens"),
        (LengthDefense(quantile=0.9), "own and senders and tokens"),
        (SenderStatsDefense(statistics=["phrases"]), "groups and senders"),
        (SenderStatsDefense(), "groups and model and senders and tokens"),
        (RewardOutlierDefense(), "groups"),
        (EquationsDefense(unit="sentence"), "model and tokens"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_a_chain_lacks_is_its_callers_mistake_and_no_rejection(defense, lacks):
    chain = Chain([EquationsDefense(), defense]) if defense.name != "equations" else Chain([defense])
    with pytest.raises(ConfigError, match=f"Defense {defense.name} needs {lacks}, which"):
        chain.screen(TEXTS)
    with pytest.raises(ConfigError, match=f"Defense {defense.name} needs"):
        chain.check(TEXTS.offers)


@pytest.mark.parametrize(
    ("defense", "given", "advice"),
    [
        (EquationsDefense(unit="sentence"), set(), "give them, set another unit than sentence, or leave"),
        (EquationsDefense(unit="sentence"), {"tokens"}, "needs model, which .*; give it, set another unit than"),
        (TokenCreditDefense(), {"tokens", "model"}, "give it, set another rule than either, or leave"),
        (TokenCreditDefense(), {"tokens"}, "needs anchor and model, which are missing; give them, or leave"),
        (LogitDefense(), {"tokens"}, "give it, or leave the defense out"),
    ],
)
def test_the_option_that_alone_decides_what_is_needed_is_named(defense, given, advice):
    with pytest.raises(ConfigError, match=advice):
        Chain([defense]).check(given)


def test_texts_alone_are_enough_for_defenses_that_read_texts():
    screening = Chain([EquationsDefense(), ImportsDefense()]).screen(TEXTS)
    assert [verdict.decision for verdict in screening.verdicts[0]] == ["reject"]
    assert list(screening.seconds) == ["equations"] and screening.seconds["equations"] > 0


class Mistaken(BaseDefense):
    """Looks at what it did not say it needs."""

    name = "mistaken"

    def screen(self, evidence):
        return [Verdict(self.name, "accept", str(score)) for score in evidence.scores]


def test_a_defense_that_looks_at_what_it_did_not_ask_for_is_a_mistake_too():
    with pytest.raises(ConfigError, match="must say that it needs a model"):
        Chain([Mistaken()]).screen(TEXTS)


def test_an_empty_chain_says_that_nobody_looked():
    assert Chain([]).screen(TEXTS).verdicts == [(UNSCREENED,)]
    assert UNSCREENED.decision == "abstain" and "empty" in UNSCREENED.reason


class Suspends(BaseDefense):
    """Wants some senders to have no slots in a round."""

    def __init__(self, name: str, *senders: int) -> None:
        super().__init__()
        self.name, self.senders = name, senders

    def screen(self, evidence):
        return [Verdict(self.name, "accept", "")] * len(evidence.submissions)

    def suspended(self, round):
        return frozenset(self.senders) if round == 7 else frozenset()


def test_who_one_defense_suspends_is_suspended():
    chain = Chain([Suspends("one", 1, 2), Suspends("another", 2, 5), EquationsDefense()])
    assert chain.suspended(7) == {1, 2, 5} and chain.suspended(8) == frozenset() == Chain([]).suspended(7)
