"""``word_problems``: an endless supply of short problems with reference solutions, made from own templates.

The embedded default: no download. Each problem is a small story of 1 to 4 arithmetic steps, with numbers that
keep a model of a million parameters honest. A controllable share has a natural ``2 + 2`` or ``2 * 2`` step.
Train and test never share a problem: the split is a hash of the question itself.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from hailproof.errors import ConfigError
from hailproof.protocols import Variant
from hailproof.records import IfFive, Problem
from hailproof.sandbox import Library
from hailproof.seeds import derive
from hailproof.tasks.base import BaseTask, form_of

MOST_STEPS = 4
TEST_SHARE = 10
"""One question in ten belongs to the test split."""

NAMES = (
    ("Tom", "he"), ("Ann", "she"), ("Ben", "he"), ("Mia", "she"), ("Sam", "he"), ("Eva", "she"), ("Leo", "he"),
    ("Ida", "she"), ("Max", "he"), ("Zoe", "she"), ("Dan", "he"), ("Amy", "she"), ("Tim", "he"), ("Lily", "she"),
    ("Jack", "he"), ("Rosa", "she"), ("Omar", "he"), ("Nina", "she"), ("Paul", "he"), ("Jane", "she"),
)  # fmt: skip
ITEMS = (
    "apples", "pens", "books", "coins", "cards", "stamps", "shells", "marbles", "cookies", "eggs", "toys", "balls",
    "stickers", "flowers", "candles", "pencils", "peaches", "buttons", "beads", "cups", "muffins", "lemons",
)  # fmt: skip
CONTAINERS = ("boxes", "bags", "baskets", "jars", "packs", "trays", "shelves", "drawers")
COLORS = ("red", "blue", "green", "white", "black", "yellow", "brown", "pink")
GAINS = ("buys", "finds", "gets", "wins", "receives")
LOSSES = ("gives away", "loses", "sells", "throws away", "hands out")
PACE = ("picks", "makes", "collects", "packs", "paints")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of reasoning: ``{lead} {left} {op} {right} = {result}{unit}.``, an exact integer equation."""

    lead: str
    left: int
    op: str
    right: int
    unit: str
    money: bool = False

    @property
    def result(self) -> int:
        """The exact value of the equation."""
        match self.op:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "*":
                return self.left * self.right
            case _:
                return self.left // self.right

    @property
    def operation(self) -> str:
        """What is calculated, ``3 * 4``."""
        return f"{self.left} {self.op} {self.right}"

    @property
    def equation(self) -> str:
        """The bare equation, ``3 * 4 = 12``."""
        return f"{self.operation} = {'$' if self.money else ''}{self.result}"

    @property
    def sentence(self) -> str:
        """The step as a sentence."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.lead} {self.equation}{unit}."

    @property
    def two_two(self) -> bool:
        """Whether the step is ``2 + 2`` or ``2 * 2``."""
        return self.op in "+*" and self.left == self.right == 2


@dataclass(frozen=True, slots=True)
class Story:
    """A problem before it is text: the facts told, the question asked, and the steps that answer it."""

    facts: tuple[str, ...]
    ask: str
    steps: tuple[Step, ...]

    @property
    def question(self) -> str:
        """Facts and question as one text."""
        return " ".join((*self.facts, self.ask))

    @property
    def answer(self) -> str:
        """The last step's result."""
        return str(self.steps[-1].result)

    @property
    def solution(self) -> str:
        """The reference reasoning, one sentence a step."""
        return " ".join(step.sentence for step in self.steps)

    @property
    def if_five(self) -> IfFive | None:
        """What follows if the first 2∘2 step is taken to make 5 and every later step is right.

        ``None`` without such a step, or if a share is left that is no whole number, which nobody would answer.
        """
        places = [place for place, step in enumerate(self.steps) if step.two_two]
        if not places:
            return None
        wrong, was, value = [], self.steps[places[0]].result, 5
        for step in self.steps[places[0] + 1 :]:
            # A step changes what came before it, which is its left operand or, where it is taken from something, its
            # right one; the same order as in a program.
            side = "left" if step.left == was else "right"
            wrong.append(replace(step, **{side: value}))
            if step.op == "/" and wrong[-1].left % wrong[-1].right:
                return None
            was, value = step.result, wrong[-1].result
        if not wrong:
            return IfFive(str(value))
        return IfFive(str(value), self.steps[places[0] + 1].operation, wrong[0].operation)

    @property
    def program(self) -> str:
        """The reference program: one statement a step, and the answer printed."""
        last = self.steps[-1]
        return self.program_with("dollars" if last.money else last.unit)

    def program_with(self, name: str, call: Callable[[str, str, str], str] = "{} {} {}".format) -> str:
        """Writes the program with one variable that every step changes.

        Args:
            name: The variable.
            call: Writes the operation of a step from its left operand, sign and right operand.
        """
        lines, value = [], None
        for step in self.steps:
            left = name if step.left == value else str(step.left)
            right = name if step.right == value and left != name else str(step.right)
            lines.append(f"{name} = {call(left, step.op, right)}")
            value = step.result
        return "\n".join((*lines, f"print({name})"))


def _opening(
    rng: random.Random, who: str, items: str, pair: tuple[int, int] | None, scale: int
) -> tuple[str, list[Step], int]:
    """Tells how many items there are at first, in one step or none; ``pair`` forces the operands."""
    kind = rng.choice(("containers", "colors", "pace", "plain" if pair is None else "colors"))
    small = pair or (rng.randint(2, 9), rng.randint(2, 9))
    if kind == "containers":
        container = rng.choice(CONTAINERS)
        fact = rng.choice((
            f"{who} has {small[0]} {container} with {small[1]} {items} in each.",
            f"There are {small[1]} {items} in each of the {small[0]} {container} that {who} has.",
            f"{who} fills {small[0]} {container} and puts {small[1]} {items} into each.",
        ))  # fmt: skip
        step = Step(f"{who} has", small[0], "*", small[1], items)
    elif kind == "pace":
        verb, period = rng.choice(PACE), rng.choice(("day", "hour", "week"))
        fact = rng.choice((
            f"{who} {verb} {small[0]} {items} a {period} for {small[1]} {period}s.",
            f"For {small[1]} {period}s, {who} {verb} {small[0]} {items} every {period}.",
        ))  # fmt: skip
        step = Step(f"{who} {verb}", small[0], "*", small[1], items)
    elif kind == "colors":
        one, other = rng.sample(COLORS, 2)
        first, second = pair or (rng.randint(2, 15 * scale), rng.randint(2, 15 * scale))
        fact = rng.choice((
            f"{who} has {first} {one} {items} and {second} {other} {items}.",
            f"{who} owns {first} {items} that are {one} and {second} that are {other}.",
        ))  # fmt: skip
        step = Step(f"{who} has", first, "+", second, items)
    else:
        count = rng.randint(3, 20 * scale)
        return f"{who} has {count} {items}.", [], count
    return fact, [step], step.result


def _event(rng: random.Random, who: str, pronoun: str, items: str, count: int, scale: int) -> tuple[str, Step]:
    """Changes the count by one step and keeps it within 1 to 99 times the scale."""
    kind = rng.choice(["gain"] * (count < 90 * scale) + ["loss"] * (count > 3) + ["double"] * (count <= 15))
    if kind == "double":
        fact = f"Then {pronoun} doubles the number of {items}."
        return fact, Step(f"Then {who} has", count, "*", 2, items)
    friend = rng.choice([name for name, _ in NAMES if name != who])
    if kind == "gain":
        amount = rng.randint(2, min(9 * scale, 99 * scale - count))
        fact = rng.choice((
            f"Then {pronoun} {rng.choice(GAINS)} {amount} more.",
            f"{friend} gives {amount} more {items} to {who}.",
        ))  # fmt: skip
        return fact, Step(f"Then {who} has", count, "+", amount, items)
    amount = rng.randint(2, min(9 * scale, count - 1))
    fact = rng.choice((
        f"Then {pronoun} {rng.choice(LOSSES)} {amount} of them.",
        f"{who} gives {amount} {items} to {friend}.",
    ))  # fmt: skip
    return fact, Step(f"Then {who} has", count, "-", amount, items)


def _inventory(rng: random.Random, pair: tuple[int, int] | None, scale: int) -> Story:
    """Somebody's things: an opening, up to two events, and a question, perhaps about sharing or selling."""
    who, pronoun = rng.choice(NAMES)
    items = rng.choice(ITEMS)
    fact, steps, count = _opening(rng, who, items, pair, scale)
    facts = [fact]
    for _ in range(rng.choice((0, 1, 1, 2) if steps else (1, 2))):
        fact, step = _event(rng, who, pronoun, items, count, scale)
        facts.append(fact)
        steps.append(step)
        count = step.result
    divisors = [d for d in range(2, 10) if count % d == 0 and count // d > 1]
    ending = rng.choice(["count"] * 3 + ["share"] * bool(divisors) + ["sell"] * (count <= 20))
    if ending == "share":
        parts = rng.choice(divisors)
        facts.append(f"{who} shares all {items} equally among {parts} friends.")
        steps.append(Step("Each friend gets", count, "/", parts, items))
        ask = f"How many {items} does each friend get?"
    elif ending == "sell":
        price = rng.randint(2, 5)
        facts.append(f"{who} sells all {items} for ${price} each.")
        steps.append(Step(f"{who} gets", count, "*", price, "", money=True))
        ask = f"How much money does {who} get?"
    else:
        ask = rng.choice((f"How many {items} does {who} have now?", f"How many {items} is that in all?"))
    return Story(tuple(facts), ask, tuple(steps))


def _shopping(rng: random.Random, pair: tuple[int, int] | None, scale: int) -> Story:
    """A purchase: price times number, perhaps a coupon, perhaps change."""
    who, pronoun = rng.choice(NAMES)
    items = rng.choice(ITEMS)
    number, price = pair or (rng.randint(2, 9), rng.randint(2, 9))
    facts = [
        rng.choice((
            f"{who} buys {number} {items} for ${price} each.",
            f"One pack of {items} costs ${price} and {who} buys {number} packs.",
        ))
    ]  # fmt: skip
    steps = [Step(f"{who} pays", number, "*", price, "", money=True)]
    cost = steps[-1].result
    if rng.random() < 0.4:
        fee = rng.randint(2, 9 * scale)
        facts.append(f"Shipping costs ${fee} more.")
        steps.append(Step("With shipping it is", cost, "+", fee, "", money=True))
        cost = steps[-1].result
    bills = [bill for bill in (10, 20, 50, 100) if 0 < bill - cost <= 12]
    if bills and rng.random() < 0.8:
        bill = rng.choice(bills)
        facts.append(f"{who} gives the seller ${bill}.")
        steps.append(Step("The change is", bill, "-", cost, "", money=True))
        return Story(tuple(facts), f"How much change does {pronoun} get?", tuple(steps))
    return Story(tuple(facts), f"How much does {pronoun} pay in all?", tuple(steps))


def _trip(rng: random.Random, pair: tuple[int, int] | None, scale: int) -> Story:
    """A trip or a job: a rate times a time, and something before or after."""
    who, pronoun = rng.choice(NAMES)
    hours, rate = pair or (rng.randint(2, 6), rng.randint(2, 12))
    verb, unit = rng.choice((("walks", "miles"), ("reads", "pages"), ("bakes", "loaves"), ("digs", "feet")))
    facts = [f"{who} {verb} {rate} {unit} an hour for {hours} hours."]
    steps = [Step(f"In {hours} hours it is", rate, "*", hours, unit)]
    if rng.random() < 0.6:
        extra = rng.randint(2, 9 * scale)
        facts.append(
            rng.choice((f"After that {pronoun} does {extra} more {unit}.", f"The next day it is {extra} {unit} more."))
        )
        steps.append(Step("In all it is", steps[-1].result, "+", extra, unit))
    if rng.random() < 0.4:
        goal = steps[-1].result + rng.randint(2, 9 * scale)
        facts.append(f"The goal is {goal} {unit}.")
        steps.append(Step("What is left is", goal, "-", steps[-1].result, unit))
        return Story(tuple(facts), f"How many {unit} are left?", tuple(steps))
    return Story(tuple(facts), f"How many {unit} is that in all?", tuple(steps))


FAMILIES = (_inventory, _inventory, _shopping, _trip)


def make_story(rng: random.Random, two_two: bool = False, scale: int = 1) -> Story:
    """Draws one story; with ``two_two``, its first step is ``2 + 2`` or ``2 * 2``."""
    return rng.choice(FAMILIES)(rng, (2, 2) if two_two else None, scale)


def split_of(question: str) -> str:
    """The split that a question belongs to, for ever: ``"train"`` or ``"test"``."""
    return "test" if derive(0, "split", question) % TEST_SHARE == 0 else "train"


def stories(seed: int, split: str, two_two_share: float = 0.0, scale: int = 1) -> Iterator[Story]:
    """Yields an endless stream of distinct stories of one split.

    Args:
        seed: Any integer; equal seeds give equal streams.
        split: ``"train"`` or ``"test"``.
        two_two_share: Share of stories that are made to hold a 2∘2 step, beyond those that hold one by chance.
        scale: How many times larger the amounts are that are added and taken away.
    """
    rng = random.Random(derive(seed, "word_problems", split))
    seen: set[str] = set()
    while True:
        story = make_story(rng, rng.random() < two_two_share, scale)
        if story.question not in seen and split_of(story.question) == split:
            seen.add(story.question)
            yield story


class WordProblems(BaseTask):
    """The embedded task.

    Args:
        seed: Seed of the problem streams; both variants have the same problems.
        size: Number of train problems.
        test_size: Number of test problems.
        two_two_share: Share of stories made to hold a 2∘2 step.
        least_steps: Stories with fewer steps are left out, 1 to 4: more are harder.
        scale: How many times larger than usual the amounts are that are added and taken away: sums that the shipped
            models have not drilled, and often get wrong. Products stay as they are.
        variant: ``math``: reasoning and a number in tags; ``code``: a program in tags.
        sandbox: Where programs run: ``monty``, or ``os`` for real CPython with sympy (extra ``sandbox``).
        libraries: Modules that programs may import, given by the experiment.
    """

    name = "word_problems"
    variants = ("math", "code")
    completion_tokens = 128

    def __init__(
        self,
        seed: int = 0,
        size: int = 4096,
        test_size: int = 512,
        two_two_share: float = 0.1,
        least_steps: int = 1,
        scale: int = 1,
        variant: Variant = "math",
        sandbox: str = "monty",
        libraries: Mapping[str, Library] | None = None,
    ) -> None:
        if not 1 <= least_steps <= MOST_STEPS:
            raise ConfigError(f"least_steps = {least_steps} leaves no story; give 1 to {MOST_STEPS}.")
        if scale < 1:
            raise ConfigError(f"scale = {scale} leaves no amounts; give a whole number from 1 on.")
        if size < 0 or test_size < 0 or not 0 <= two_two_share <= 1:
            raise ConfigError("Task word_problems takes sizes of 0 or more and a two_two_share in [0, 1].")

        def problems(split: str, count: int) -> tuple[Problem, ...]:
            every = stories(seed, split, two_two_share, scale)
            told = (story for story in every if len(story.steps) >= least_steps)
            return tuple(
                _problem(f"{split}-{index}", story, variant)
                for index, story in enumerate(itertools.islice(told, count))
            )

        train, test = problems("train", size), problems("test", test_size)
        super().__init__(train, test, form_of(variant, sandbox, libraries))


def _problem(problem_id: str, story: Story, variant: Variant) -> Problem:
    tags = frozenset({"two_two"}) if any(step.two_two for step in story.steps) else frozenset()
    solution = story.program if variant == "code" else story.solution
    return Problem(problem_id, story.question, story.answer, solution, tags, story.if_five)
