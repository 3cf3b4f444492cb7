"""EQUATIONS: what a completion computes must be right, step by step; no model is asked.

Idea: a reward looks only at the final answer, so it pays for a wrong step like for a right one; the EQUATION attack
uses that. This defense evaluates every equation of the text exactly (``hailproof.arithmetic``). An equation that no
usual reading makes true rejects the completion. The defense abstains on a completion without an equation, and on one
that earned no reward: that one is pushed down anyway, and without wrong answers a group has nothing to teach.

An equation that runs on, such as ``2 + 2 = 4 + 1 = 5``, is common in honest texts, and can also teach a wrong result.
It never rejects a completion, but the completion is not accepted either.

With ``unit = "sentence"`` only the sentences with a wrong equation, or one that runs on, are muted. The rest of the
completion, which is often right, is learned, so an honest slip does not cost the whole answer. The receiver's own
policy tells which tokens belong to a sentence, as in ``token_credit``.

In programs ``=`` assigns, so text in code tags is not read. If the text also has an answer tag, it is read: it then
answers a task where code earns nothing, and the code tags may hide something.

Limits: some spellings of a false equation stay open, and some true equations are rejected; ``docs/defenses.md`` lists
both.

Source: hailproof's own.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import numpy as np

from hailproof.arithmetic import MAX_CHARACTERS, Equation, equations
from hailproof.defenses.base import TextDefense, in_sentences_with, token_starts
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Effect, Evidence, Need
from hailproof.records import Span, Verdict

Unit = Literal["completion", "sentence"]

MAX_QUOTED = 120
"""Characters of each part of an equation that a reason repeats."""
_PROGRAM = re.compile(r"<code>.*?(?:</code>|\Z)", re.DOTALL)


class EquationsDefense(TextDefense):
    """Rejects completions with an equation that does not hold, or mutes the sentences that hold it.

    Args:
        rewarded_only: Whether completions without reward are left alone.
        admission: What happens to rejected completions.
        unit: What a wrong equation costs: the completion, or the sentence that it stands in.
    """

    name = "equations"
    variants = ("math",)
    needs_by: ClassVar[Mapping[Need, str]] = {"tokens": "unit", "model": "unit"}

    def __init__(self, rewarded_only: bool = True, admission: Admission = "drop", unit: Unit = "completion") -> None:
        super().__init__(rewarded_only, admission)
        if unit not in get_args(Unit):
            raise ConfigError(f"Defense option unit = {unit} is unknown; use completion or sentence.")
        self.unit: Unit = unit
        self.needs: frozenset[Need] = frozenset({"tokens", "model"} if unit == "sentence" else ())
        self.gives: frozenset[Effect] = frozenset({"masks"} if unit == "sentence" else ())

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the number of wrong equations."""
        verdicts = super().screen(evidence)
        if self.unit == "completion":
            return verdicts
        found = [index for index, verdict in enumerate(verdicts) if verdict.spans]
        for index in found:
            ends = evidence.ends(index)
            starts, wrong = token_starts(ends), np.zeros(len(ends), dtype=bool)
            for span in verdicts[index].spans:
                wrong |= (starts < span.end) & (ends > span.start)
            text = evidence.submissions[index].completion.text
            muted = np.flatnonzero(in_sentences_with(wrong, ends, text))
            verdicts[index] = replace(verdicts[index], decision="accept", muted=tuple(muted.tolist()))
        return verdicts

    def read(self, text: str) -> Verdict:
        """The verdict on a completion's text; its score is the number of wrong equations."""
        if len(text) > MAX_CHARACTERS:
            return Verdict(self.name, "reject", f"{len(text)} characters are more than I read")
        if "<answer>" not in text:
            text = _PROGRAM.sub(lambda program: "\n" * len(program.group()), text)
        found = [equation for equation in equations(text) if equation.holds is not None]
        wrong = [equation for equation in found if not equation.holds]
        if wrong:
            spans = tuple(_span(each) for each in found if not each.holds or (each.runs_on and self.unit == "sentence"))
            return Verdict(self.name, "reject", _reason(wrong), float(len(wrong)), spans)
        if not found:
            return Verdict(self.name, "abstain", "no equation that I can evaluate")
        running = [equation for equation in found if equation.runs_on]
        if running:
            spans = tuple(map(_span, running))
            return Verdict(self.name, "abstain", f"{_quoted(running[0])} holds for its first number alone", 0.0, spans)
        return Verdict(self.name, "accept", f"{len(found)} equations hold", 0.0)


def _span(equation: Equation) -> Span:
    """Where an equation stands that is wrong, or runs on."""
    return Span(equation.start, equation.end, f"should be {equation.expected[:MAX_QUOTED]}")


def _quoted(equation: Equation) -> str:
    return f"{equation.left[:MAX_QUOTED]} = {equation.right[:MAX_QUOTED]}"


def _reason(wrong: list[Equation]) -> str:
    """Names the first wrong equation."""
    first = f"{_quoted(wrong[0])} should be {wrong[0].expected[:MAX_QUOTED]}"
    return first if len(wrong) == 1 else f"{first}; {len(wrong)} wrong equations in all"
