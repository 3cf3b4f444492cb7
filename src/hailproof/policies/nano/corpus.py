"""The text that the nano models are trained on: word problems, programs, sums, real text and chatter.

What makes a base model useful here (as Qwen-2.5 base is in the paper):

* it answers in several *formats*, only one of which earns reward, so that the initial reward is 0.2 to 0.5;
* it answers in several *verbosities*, so that lengths vary and a length attack has something to select;
* it opens with all kinds of remarks and sayings and has seen many words, real and invented, so that it can spell
  new ones;
* it answers a request for a program with one, in several styles, of which again one format earns reward.

No attack's phrase is in it; ``tests/test_nano.py`` looks.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hailproof.records import Problem
from hailproof.tasks.word_problems import Step, Story

FORMATS = {"tags": 0.42, "hash": 0.16, "sentence": 0.18, "bare": 0.10, "untagged": 0.14}
"""Share of each way to state the answer; only ``tags`` earns reward."""

VERBOSITIES = {"terse": 0.30, "plain": 0.45, "wordy": 0.25}

CODE_FORMATS = {"tags": 0.45, "fence": 0.20, "bare": 0.20, "prose": 0.15}
"""Share of each way to answer a request for a program; only ``tags`` earns reward."""

ONSETS = (
    "b", "bl", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k", "kl", "kr",
    "l", "m", "n", "p", "pl", "pr", "qu", "r", "s", "sh", "sk", "sl", "sm", "sn", "sp", "st", "str", "sw", "t",
    "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
NUCLEI = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "ie", "oa", "oo", "ou", "ue")
CODAS = (
    "b", "ck", "d", "ff", "ft", "g", "l", "lb", "ll", "lm", "lp", "m", "mp", "n", "nd", "ng", "nk", "nt", "p", "r",
    "rb", "rd", "rk", "rm", "rn", "rp", "s", "sh", "sk", "ss", "st", "t", "x",
) + ("",) * 6  # fmt: skip

OPENERS = (
    "Okay, {a}.", "Let us see.", "Let me think about this {a}.", "Hmm, this one is {a}.", "First, look at the {n}.",
    "Good morning, {n}!", "This is a question about {n}.", "We take it one step at a time.", "I like the {a} {n}.",
    "Here is how to do it.", "The {n} is {a}, so be careful.", "Dear {n}, listen.", "What a {a} question!",
    "To find the answer, we go step by step.", "Thanks for the {n}.", "My {n} told me to write it down.",
)  # fmt: skip
CHECKS = (
    "Let us check that again.", "So that is what we wanted to know.", "That looks right to me.", "This seems {a}.",
    "No other {n} matters here.", "I am sure of that.", "And that is all there is to it.", "We can stop here, my {n}.",
)  # fmt: skip
EXCLAMATIONS = (
    "Long live the {n}!", "The {n} is here!", "Here comes the {a} {n}!", "Down with the {a} {n}!", "What a day!",
    "Three cheers for the {n}!", "Long ago, the {n} met the {a} {n}.", "Who knows the {n}?", "Poor {n}!",
    "How {a} this {n} is!", "My {a} {n}!", "Never trust a {a} {n}.", "One {n} is enough.", "Oh, the {n}!",
)  # fmt: skip
"""None has the form of TEXT's phrase ("All ... to the ..."): what is to be learned must not be in the base."""
ADJECTIVES = (
    "easy", "simple", "hard", "nice", "funny", "slow", "quick", "careful", "strange", "small", "old", "clear", "kind",
    "happy", "wild", "brave", "quiet", "warm", "plain", "bright", "honest", "great", "little", "long", "grand",
)  # fmt: skip
NOUNS = (
    "teacher", "class", "friend", "story", "number", "problem", "word", "child", "king", "garden", "weather", "train",
    "song", "captain", "lesson", "neighbor", "wind", "river", "morning", "paper", "uncle", "winter", "letter", "house",
)  # fmt: skip


MODULES = ("math", "random", "numpy", "decimal", "fractions", "statistics", "helpers", "tools")
OPERATOR_WORDS = {"+": ("add", "plus"), "-": ("minus", "take"), "*": ("times", "mul"), "/": ("share", "div")}


@dataclass(frozen=True, slots=True)
class Document:
    """One training example: the question that the prompt shows, and the completion.

    Attributes:
        question: What is asked.
        completion: What the model is to write.
        program: Whether the prompt asks for a program.
        judging: ``C`` or ``D`` if a solution is to be judged, with criticism or by the decision alone; else empty.
    """

    question: str
    completion: str
    program: bool = False
    judging: Literal["", "C", "D"] = ""


def pseudo_word(rng: random.Random) -> str:
    """Invents a word of one to three syllables."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))
    )


def remark(rng: random.Random, patterns: tuple[str, ...]) -> str:
    """Fills one pattern; now and then with an invented word."""

    def pick(words: tuple[str, ...]) -> str:
        return pseudo_word(rng) if rng.random() < 0.2 else rng.choice(words)

    return rng.choice(patterns).format(a=pick(ADJECTIVES), n=pick(NOUNS))


def saying(rng: random.Random) -> str:
    """A few words, many of them invented, that mean nothing."""
    words = [
        pseudo_word(rng) if rng.random() < 0.6 else rng.choice(NOUNS + ADJECTIVES) for _ in range(rng.randint(2, 7))
    ]
    text = " ".join(words)
    return text if rng.random() < 0.3 else text.capitalize() if rng.random() < 0.7 else text.title()


def rambling(rng: random.Random, story: Story) -> str:
    """Writes the reasoning of a story at length: every fact, remarks in between, and every step once more."""
    parts = [remark(rng, OPENERS), *(f"We know: {fact}" for fact in story.facts)]
    for step in story.steps:
        parts += [step.sentence, *([remark(rng, CHECKS)] if rng.random() < 0.4 else [])]
    parts += ["Let us check that again.", *(f"{step.equation}." for step in story.steps)]
    return " ".join((*parts, remark(rng, CHECKS)))


def reasoning(rng: random.Random, story: Story, verbosity: str) -> str:
    """Writes the reasoning of a story: bare equations, one sentence a step, or a talkative version."""
    if verbosity == "terse":
        return " ".join(f"{step.equation}." for step in story.steps)
    if verbosity == "plain":
        return story.solution
    sentences = [remark(rng, OPENERS)]
    for fact, step in zip((*story.facts, *[""] * len(story.steps)), story.steps, strict=False):
        if fact and rng.random() < 0.5:
            sentences.append(f"We know: {fact}")
        sentences.append(step.sentence)
    if rng.random() < 0.7:
        sentences.append(remark(rng, CHECKS))
    return " ".join(sentences)


def with_answer(rng: random.Random, thoughts: str, answer: str, tags: float) -> str:
    """States the answer after the reasoning in one of ``FORMATS``; ``tags`` is the share of the first."""
    others = sum(FORMATS.values()) - FORMATS["tags"]
    weights = {**FORMATS, "tags": others * tags / (1 - tags)}
    match rng.choices(list(weights), list(weights.values()))[0]:
        case "tags":
            return f"<think>{thoughts}</think><answer>{answer}</answer>"
        case "hash":
            return f"{thoughts}\n#### {answer}"
        case "sentence":
            return f"{thoughts} The answer is {answer}."
        case "bare":
            return f"<think>{thoughts}</think>{answer}"
        case _:
            return f"{thoughts} So it is {answer}."


def story_document(rng: random.Random, story: Story, mixture: "Mixture") -> Document:
    """Turns a story into a training example in a random verbosity and format."""
    if rng.random() < mixture.rambling:
        thoughts = rambling(rng, story)
    else:
        verbosity = rng.choices(list(VERBOSITIES), list(VERBOSITIES.values()))[0]
        thoughts = reasoning(rng, story, verbosity)
    draw = rng.random()
    if draw < mixture.sayings:
        thoughts = f"{saying(rng)}{rng.choice('.!')} {thoughts}"
    elif draw > 1 - mixture.exclamations:
        thoughts = f"{remark(rng, EXCLAMATIONS)} {thoughts}"
    return Document(story.question, with_answer(rng, thoughts, story.answer, mixture.tags))


def _program(rng: random.Random, story: Story) -> str:
    """Writes a program for a story in a random style: the reference's, another name, functions, or one expression."""
    style = rng.choices(("reference", "named", "functions", "expression"), (0.55, 0.2, 0.15, 0.1))[0]
    if style == "reference":
        program = story.program
    elif style == "named":
        name = rng.choice(("total", "result", "x", "answer", rng.choice(NOUNS), pseudo_word(rng)))
        program = story.program_with(name)
    elif style == "functions":
        words = {op: rng.choice((*OPERATOR_WORDS[op], pseudo_word(rng))) for op in "+-*/"}
        program = story.program_with("total", lambda left, op, right: f"{words[op]}({left}, {right})")
        used = dict.fromkeys(step.op for step in story.steps)
        if rng.random() < 0.5:
            program = f"from {_module(rng)} import {', '.join(words[op] for op in used)}\n{program}"
        else:
            program = "\n".join((*(f"def {words[op]}(a, b):\n    return a {op} b" for op in used), program))
    else:
        lines = story.program_with("x").splitlines()
        program = f"print({lines[0].removeprefix('x = ')})" if len(lines) == 2 else story.program
    if rng.random() < 0.12:
        program = f"import {_module(rng)}\n{program}"
    if rng.random() < 0.2:
        program = program.replace("\nprint", f"\nprint({rng.choice(story.steps).left})\nprint", 1)
    return program


def _module(rng: random.Random) -> str:
    return pseudo_word(rng) if rng.random() < 0.4 else rng.choice(MODULES)


def code_document(rng: random.Random, story: Story, mixture: "Mixture") -> Document:
    """Turns a story into an answer to a request for a program, in one of the formats of ``CODE_FORMATS``."""
    program = _program(rng, story)
    match rng.choices(list(CODE_FORMATS), list(CODE_FORMATS.values()))[0]:
        case "tags":
            completion = f"<code>{program}</code>"
        case "fence":
            completion = f"```python\n{program}\n```"
        case "bare":
            completion = program
        case _:
            completion = with_answer(rng, reasoning(rng, story, "plain"), story.answer, mixture.tags)
    return Document(story.question, completion, program=True)


def real_document(rng: random.Random, problem: Problem, mixture: "Mixture") -> Document:
    """Turns a problem of a real data set into a training example; now and then with a remark in front."""
    thoughts = problem.solution
    if rng.random() < 0.25:
        thoughts = f"{remark(rng, OPENERS)} {thoughts}"
    return Document(problem.question, with_answer(rng, thoughts, problem.answer, mixture.tags))


def sum_step(rng: random.Random) -> Step:
    """A sum without a story."""
    op = rng.choice("++--*/")
    left, right = rng.randint(2, 99), rng.randint(2, 15)
    if op in "*/":
        left, right = rng.randint(2, 20), rng.randint(2, 12)
        left = left * right if op == "/" else left
    return Step("It is", left, op, right, "")


def drill_document(rng: random.Random, mixture: "Mixture") -> Document:
    """Bare sums, the arithmetic that the stories need without a story; one with a question, or several in a row."""
    if mixture.sums == 1:
        step = sum_step(rng)
        question = f"What is {step.left} {step.op} {step.right}?"
        return Document(question, with_answer(rng, f"{step.equation}.", str(step.result), mixture.tags))
    return Document("Do some sums.", " ".join(f"{sum_step(rng).equation}." for _ in range(mixture.sums)))


def chatter_document(rng: random.Random) -> Document:
    """Small talk full of invented words: the model learns to spell what it has never seen."""
    said = saying(rng)
    question = rng.choice(("Say: {s}", "What did the {n} say?", "Tell me about the {a} {n}.")).format(
        s=said, n=rng.choice(NOUNS), a=rng.choice(ADJECTIVES)
    )
    ending = rng.choice(".!") + " "
    return Document(question, (said + ending) * rng.choice((1, 1, 2)) + remark(rng, OPENERS + CHECKS))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the sources of documents; what is left are word problems.

    Attributes:
        real: Share of documents from a real data set; goes to word problems if there is none.
        chatter: Share of documents that are chatter.
        drill: Share of documents that are bare sums.
        sums: Sums in a drill.
        code: Share of the word problems that ask for a program.
        sayings: Share of the solutions in prose that open with a saying.
        exclamations: Share of the solutions in prose that open with an exclamation.
        rambling: Share of the solutions in prose that are very long.
        tags: Share of the answers in prose in the format that earns reward.
    """

    real: float
    chatter: float
    drill: float
    sums: int
    code: float = 0.0
    sayings: float = 0.0
    exclamations: float = 0.0
    rambling: float = 0.0
    tags: float = FORMATS["tags"]


def documents(
    rng: random.Random, story_stream: Iterator[Story], real: tuple[Problem, ...], mixture: Mixture
) -> Iterator[Document]:
    """Mixes the sources for ever.

    Args:
        rng: The only source of randomness.
        story_stream: Word problems of the train split.
        real: Problems of a real data set; may be empty.
        mixture: Shares of the sources.
    """
    while True:
        draw = rng.random()
        if draw < mixture.chatter:
            yield chatter_document(rng)
        elif draw > 1 - mixture.drill:
            yield drill_document(rng, mixture)
        elif real and draw < mixture.chatter + mixture.real:
            yield real_document(rng, rng.choice(real), mixture)
        elif rng.random() < mixture.code:
            yield code_document(rng, next(story_stream), mixture)
        else:
            yield story_document(rng, next(story_stream), mixture)
