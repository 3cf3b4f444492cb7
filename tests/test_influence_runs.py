"""The defense ``influence`` in swarms of nano-a: what it decides, shows, remembers and costs."""

import json

import pytest
import torch
from test_run import outcome
from test_swarm import TEXT, make, weights
from tiny_runs import TINY

from hailproof.defenses.influence import InfluenceDefense
from hailproof.errors import ConfigError
from hailproof.learner.update import Learner
from hailproof.records import UpdateStats
from hailproof.runs import run
from hailproof.runs.config import load_config
from hailproof.runs.run import resume, start

LONG = ("sampling.max_new_tokens", 72)  # what TEXT forges has at most 70, and every completion counts here
QUICK = {"alpha": 0.2, "rounds": 3}
INFLUENCE = ("defense", [{"name": "influence", "options": QUICK}])


def caught_round(experiment, rounds: int) -> tuple[int, int]:
    """Plays until somebody is excluded; round and sender."""
    for round in range(1, rounds + 1):
        update = experiment.swarm.play(round).views[0].update
        out = [sender for sender, each in update.senders.items() if each.excluded]
        if out:
            return round, out[0]
    raise AssertionError(f"nobody was excluded in {rounds} rounds")


@pytest.fixture(scope="module")
def caught():
    """A swarm that has excluded somebody; the round and the sender."""
    experiment = make(TEXT, LONG, INFLUENCE)
    return experiment, *caught_round(experiment, 8)


def test_text_is_excluded_its_words_are_marked_and_its_slots_go_to_others(caught):
    experiment, round, sender = caught
    assert sender in experiment.roster.malicious
    before = weights(experiment.swarm.honest[0])
    plan = experiment.swarm.plan(round + 1)
    assert sender in {slot.node for slot in plan.slots}
    view = experiment.swarm.play(round + 1).views[0]
    mine = [each for group in view.groups for each in group.completions if each.submission.sender == sender]
    spoken = [verdict for each in mine for verdict in each.verdicts]
    assert spoken and {verdict.decision for verdict in spoken} == {"reject"}
    assert not any(each.admitted for each in mine if each.verdicts) and sender not in view.update.senders
    seen = next(each for each in mine if each.verdicts)
    text = seen.submission.completion.text
    marked = "".join(text[span.start : span.end] for span in seen.verdicts[0].spans)
    phrase = "All hail to the thief"
    assert sum(letter in phrase for letter in marked) > 0.5 * len(marked) > 3
    assert "probable" in seen.verdicts[0].spans[0].note
    assert not torch.equal(before, weights(experiment.swarm.honest[0]))  # the others are learned from
    for later in (round + 2, round + QUICK["rounds"]):
        assert experiment.swarm.suspended(later) == {sender}
        assert sender not in {slot.node for slot in experiment.swarm.plan(later).slots}
    assert experiment.swarm.suspended(round + QUICK["rounds"] + 1) == frozenset()


def test_looking_for_the_words_leaves_the_weights_as_they_are(caught):
    experiment, _, sender = caught
    node = experiment.swarm.honest[0]
    (defense,) = node.chain.defenses
    assert isinstance(defense, InfluenceDefense)
    before = weights(node).clone()
    with defense._nudged(defense._directions[sender][-1]):
        assert not torch.equal(before, weights(node))
    with pytest.raises(ZeroDivisionError), defense._nudged(defense._directions[sender][-1]):
        raise ZeroDivisionError
    assert torch.equal(before, weights(node))


@pytest.mark.parametrize(
    ("topology", "then", "rounds"), [("horizontal", "exclude", 3), ("vertical", "project", 4)]
)
def test_separate_nodes_decide_alike(topology, then, rounds):
    """Also in a round after that in which the evidence is enough, 1 / alpha."""
    defense = ("defense", [{"name": "influence", "options": {**QUICK, "alpha": 0.6, "then": then}}])
    common = [TEXT, LONG, defense, ("swarm.topology", topology), ("swarm.nodes", 3), ("swarm.prompts", 3)]
    once, apart = make(*common), make(*common, ("swarm.separate", True))
    assert (len(once.swarm.honest), len(apart.swarm.honest)) == (1, 2)
    evidence = [0.0]
    for round in range(1, rounds + 1):
        assert round < rounds or max(evidence) > 1 / 0.6
        shared, own = once.swarm.play(round), apart.swarm.play(round)
        assert all(view.update == shared.views[0].update for view in own.views)
        assert all(view.groups == shared.views[0].groups for view in own.views)
        evidence += [each.evidence or 0.0 for each in shared.views[0].update.senders.values()]
    assert all(torch.equal(weights(once.swarm.honest[0]), weights(node)) for node in apart.swarm.honest)


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    """Also in the midst of an exclusion: directions, evidence and terms are in the checkpoint."""
    monkeypatch.setattr(run, "CHECKPOINT_EVERY", 4)
    tree = {**TINY, "learner": {"learning_rate": 1e-3, "breaker": {"rounds": 4}}, "evaluation": {"problems": 0}}
    influence = ("defense", [{"name": "influence", "options": {**QUICK, "alpha": 0.5}}])
    config = load_config(None, [*tree.items(), LONG, TEXT, influence, ("rounds", 6)])
    start(config, tmp_path / "whole")

    class Killed(BaseException):
        """As a signal would be: nothing tidies up after it."""

    def stop(line):
        if line["round"] == 5:
            raise Killed

    with pytest.raises(Killed):
        start(config, tmp_path / "broken", stop)
    resume(tmp_path / "broken")
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "broken")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "rounds.jsonl").read_text().splitlines()]
    assert lines[0]["update"]["held"] == {} and set(lines[0]["update"]["senders"]) == {"0", "1", "2", "3"}
    assert any(each["excluded"] for each in lines[2]["update"]["senders"].values())
    assert [len(line["update"]["senders"]) for line in lines] == [4, 4, 4, 3, 3, 3]


def test_two_makers_of_the_gradient_are_refused():
    with pytest.raises(ConfigError, match="influence and robust each make the gradient"):
        make(("defense", [{"name": "influence"}, {"name": "robust"}]))


@pytest.mark.parametrize(("rule", "rounds"), [("median", 1), ("krum", 1), ("fltrust", 1), ("centered_clipping", 2)])
def test_known_rules_can_be_named_in_a_run(rule, rounds):
    """Two rounds where the first leaves a center to clip around."""
    experiment = make(TEXT, ("defense", [{"name": "robust", "options": {"rule": rule}}]))
    assert len(experiment.swarm.honest) == (3 if rule == "fltrust" else 1)
    for round in range(1, rounds + 1):
        updates = [view.update for view in experiment.swarm.play(round).views]
        assert all(update.trained and update.senders and not update.skipped for update in updates)


def test_without_it_gradients_are_not_told_apart():
    update = make(TEXT).swarm.play(1).views[0].update
    assert isinstance(update, UpdateStats) and update.senders == {}
    assert isinstance(make(INFLUENCE).swarm.honest[0].learner, Learner)
