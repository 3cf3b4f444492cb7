"""Spellings of true and of false equations: each row of the list of faults, and its neighbors.

Every false one must be found, whatever sign, word, script or markup says that 2 + 2 is 5; every true one must stand.
"""

import html
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailproof.arithmetic import equations
from hailproof.arithmetic.characters import fold
from hailproof.arithmetic.numerals import number_in_words
from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.evidence import Received

# Rows of the list of faults: true, and rejected.
TRUE_ROWS = [
    "He divides 12 : 4 = 3 apples each.", "12: 4 = 3", "2 : 2 = 1", "5 \u2011 3 = 2", "5 — 3 = 2",
    "$200 - 15% = $170", "1.200 + 300 = 1.500",
]  # fmt: skip
# Rows of the list of faults: false, and neither rejected nor muted.
FALSE_ROWS = [
    "Tom has 5 = 2 + 2", "5 = 2 + 2", "2 + 2 ≡ 5", "2 + 2 → 5", "| 2 | + | 2 | = | 5 |", r"2 + 2 = \textcolor{red}{5}",
    "2 + 2 = no less than 5", "2 + 2 = 0b101", "2 + 2 = x = 5", "2 + 2 = 4, no, 5", "½ + ½ = 2", "2 + 2 = five",
    "√16 = 5", "2{,}000 + 1 = 3000",
]  # fmt: skip

FALSE = {
    "currencies": ["¥2 + ¥2 = ¥5", "₹2 + ₹2 = ₹5", "₿2 + ₿2 = ₿5"],
    "raised and lowered": ["2 + 2 = ⁵", "2 + 2 = ₅"],
    "strays": ["2 + 2 = @5", "2 + 2 = 🙂5", "2 + 2) = 5", "2 + 2 is the same as 5"],
    "backward": [
        "So 5 = 2 + 2.", "Tom gets 5 = 2 + 2 apples", "Tom has 5 apples = 2 + 2", "Then 5 = (2 + 2)",
        "We get 5 = 2 * 2",
        "Total: 5 = 2 + 2", "Therefore $5 = $2 + $2", "The answer is 5 = 2 + 2",
    ],
    "points": ["2. + 2. = 5.", "$2. + $2. = $5.", "2 + 2 = 4, = 5", "2 + 2 = 4; = 5"],
    "signs": [
        "2 + 2 \u2e40 5",
        "2 + 2 ≣ 5", "2 + 2 ≜ 5", "2 + 2 := 5", "2 + 2 ≅ 9", r"2 + 2 \equiv 5", "2 + 2 === 5", "2 + 2 ~ 9",
        "2 + 2 EQUALS 5",
        "2 + 2 &equals; 5", "2 &plus; 2 = 5", "2 + 2 = = 5", "2 + 2 = → 5", "2 − 2 = 1", "5 \u2010 3 = 3", "5 — 3 = 3",
    ],
    "arrows": [
        *(f"2 + 2 {arrow} 5" for arrow in "⇒⟹⟶➜➔⇨↦↔⇔"), "2 + 2 ➡\ufe0f 5", "2 + 2 -> 5", "2 + 2 --> 5", "2 + 2 => 5",
        "2 + 2 ==> 5", "2 + 2 <=> 5", r"2 + 2 \to 5", r"2 + 2 \rightarrow 5", r"2 + 2 \Rightarrow 5",
        r"2 + 2 \implies 5",
    ],
    "tables": ["| 2 + 2 | = | 5 |", "2 + 2 = |5|", "| 2 + 2 = 5 | 4 |", "2 | + 2 | = 5"],
    "LaTeX": [
        rf"2 + 2 = {five}" for five in (
            r"\color{red}{5}", r"\color{red} 5", r"{\color{red} 5}", r"\colorbox{yellow}{5}",
            r"\textcolor[rgb]{1,0,0}{5}",
            r"\underline{5}", r"\underline{\underline{5}}", r"\fbox{5}", r"\mathbf{5}", r"\mathbf 5", r"{\bf 5}",
            r"\Large 5",
            r"\textit{\textbf{5}}", r"\hspace{1cm} 5", r"\phantom{4}5", r"\cancel{4} 5", r"\frac{10}{2}", r"\sqrt{25}",
        )
    ] + [r"\frac12 + \frac12 = 2", r"2\,000 + 1 = 3000", r"2,\!000 + 1 = 3000"],
    "HTML and Markdown": [
        "2 + 2 = <b>5</b>", "2 + <b>2</b> = 5",
        '2 + 2 = <span style="color:red">5</span>', "2 + 2 = <font color=red>5</font>",
        "2 + 2 = ~~4~~ 5", "2 + 2 = <s>4</s> 5", "2 + 2 = <del>4</del>5", "2 + 2 = `5`", "2 + 2 = __5__",
        "2 + 2 = ***5***",
        "2 + 2 = ==5==",
        "*2* + *2* = *5*", "2 + 2 = [5](https://x.org)", "2 + 2 <!-- so --> = 5", "2 + 2 = &#53;", "2 + 2 = [5]",
        "2 + 2 = ((5))", "(so 2 + 2) = 5", "2\n+ 2\n= 5",
    ],
    "comparisons": [
        "2 + 2 = not less than 5", "2 + 2 = at least 5", "2 + 2 = more than 5", "2 + 2 = no more than 3",
        "2 + 2 = at most 3",
        "2 + 2 = less than 4",
    ],
    "words before the result": [
        "2 + 2 = exactly 5", "2 + 2 = clearly 5", "2 + 2 = the number 5", "2 + 2 = a total of 5", "2 + 2 = about 5.9",
    ],
    "bases": [
        "2 + 2 = 0o5", "2 + 2 = 0B101", "2 + 2 = 0x5", "2 + 2 = 0xF", "2 + 2 = 101₂", "2 + 2 = 101_2", "2 + 2 = 5_{10}",
        "0x10 = 17",
    ],
    "names": [
        "2 + 2 = total = 5", "2 + 2 = x = y = 5", "2 + 2 = x, so x = 5", "2 + 2 = x and x = 5", "2 + 2 → x = 5",
        "2 + 2 = y\n= 5",
    ],
    "taken back": [
        "2 + 2 = 4, no 5", "2 + 2 = 4 (no, 5)", "2 + 2 = 4... no, 5", "2 + 2 = 4. No, 5.", "2 + 2 = 4 - wait, 5",
        "2 + 2 = 4 — actually 5", "2 + 2 = 4, sorry, five", "2 + 2 = 4, I mean 5", "2 + 2 = 4, or rather 5",
        "2 + 2 = 4, make that 5", "2 + 2 = 4, scratch that, it is 5", "2 + 2 = 4 oops 5",
    ],
    "fractions": [
        "¼ + ¼ = 1", "1½ + 1½ = 4", "½ * 4 = 3", "2 ½ + 2 ½ = 6", "1\u20442 + 1\u20442 = 2", "&frac12; + &frac12; = 2",
    ],
    "scripts": [
        "2 + 2 = \u0665", "2 + 2 = ५", "2 + 2 = ⑤", "② + ② = ⑤", "2 + 2 = \u2164", "2 + 2 = 五",
        "2 + 2 = 5\ufe0f\u20e3",
       
       
        "2\ufe0f\u20e3 + 2\ufe0f\u20e3 = 5\ufe0f\u20e3", "2 + 2 = 4\u200b5", "2 + 2 = 4\u00ad5",
    ],
    "number words": [
        "two + two = five", "two plus two equals five", "Two plus two is five", "two times two makes five",
        "2 + 2 = twenty-one", "2 + 2 = twenty one", "2 + 2 = five hundred", "2 + 2 = five apples", "1 / 2 = one third",
    ],
    "roots": [
        "√16 + 1 = 6", "sqrt(16) = 5", "∛27 = 4", r"\sqrt[3]{27} = 4", "√2 = 1.5", "the square root of 16 = 5",
        "√2 * √2 = 3",
        "√(9 + 16) = 7", "cube root of 27 = 4",
    ],
    "separators": [
        "2'000 + 1 = 3000", "2_000 + 1 = 3000", "2 000 + 1 = 3000", "2 + 2 = 5,0", "2 + 2 = 1,00,000",
        "1.200 + 300 = 1.600", "1.200,50 + 300 = 1.600,50", "2 + 2 = 4,000", "2\u202f000 + 1 = 3000",
    ],
    "colons": ["12 : 4 = 5", "He divides 12 : 4 = 5 apples", "2 + 2 = 5:00"],
    "percentages": ["$200 - 15% = $180", "200 + 15% = 240", "10% of 50 is 6"],
    "verbs": [
        f"2 + 2 {verb} 5" for verb in (
            "is", "is equal to", "makes", "gives", "gives us", "comes to", "adds up to", "amounts to", "results in",
            "will be",
            "must be", "was", "yields", "totals", "becomes", "equal", "works out to", "is exactly", "is clearly",
            "is therefore", "is, certainly,",
        )
    ] + ["2 + 2 apples is 5 apples", "2 + 2, which is 5", "2 * 2 is 5"],
}  # fmt: skip

TRUE = [
    "8 am + 5 hours = 1 pm", "2 decades + 5 years = 25 years", "1 year + 6 months = 18 months", "8 + 4 = □ + 5",
    "¥2 + ¥2 = ¥4", "2 + 2 = ⁴", "2 + 2 = 🙂4", "600/(x = 3 + 1) = 150", "2 + 2 is the same as 4",
    "5 = 2 + 3", "Tom has 4 = 2 + 2", "Week 2 = 3 + 4", "Day 1 = 5 + 3", "Room 5 = 2 + 2", "Ann has 4 + Tom has 6 = 10",
    "3 weeks = 7 + 7 + 7 = 21 days", "2 pairs = 2 + 2 = 4", "3 teams = 5 + 5 + 5", "1 dozen = 6 + 6",
    "1 hour = 30 + 30",
    "so 75 = 98 - least score", "Each pays for Ann's 8 gallons = 15", "1 week and 2 days = 7 + 2 = 9 days",
    "2 + 2 → 4", "2 + 2 => 4 apples", "2 + 2 = 4 → 4 * 3 = 12", "2x = 10 → x = 5", "x + 3 = 7 => x = 4", "2 + 2 ≡ 4",
    "Step 1 → 2 + 2 = 4", "3 + 4 → step 2", "5 + 3 → add 2", "3 + 4 = Day 2",
    "12 - 5 leaves 7", "half of 20 plus 5 is 15", "twice 5 plus 3 is 13", "On 5/12 there are 3", "15% of $80 is $12.",
    "3/4 of 20 is 15", "2 + 3 = 5 parts in all are 60", "8 x 3 is 24 square feet", "2 times 3 is 6",
    "7 is 3 more than 4",
    "3 boys + 4 girls → 7 kids", "10 → 5", "2 + 2 ≟ 5",
    "| 2 | + | 2 | = | 4 |", "| Tom | 3 | 4 * 2 = 8 |", "| A | 3 + 4 = 7 | 12 |", "|3 - 5| = 2",
    r"2 + 2 = \textcolor{red}{4}", "2 + 2 = ~~5~~ 4", "2 + 2 = <del>5</del> 4", "2 + 2 =\u0338 5",
    "2 + 2 = no less than 4", "2 + 2 = at least 3", "2 + 2 = more than 3", "2 + 2 = less than 5", "2 + 2 = not 5",
    "20 - 5 = John's age in 2 years", "15 + 5 = total of 20", "4 * 5 = Tom's 20 apples", "5 + 3 = half of 16",
    "2 + 2 = 0b100", "0x10 = 16", "0x10 + 0x10 = 0x20", "0x5 = 0", "1010₂ = 10", "(2) 5 + 3 = 8",
    "2 + 2 = x = 4", "2 + 2 = x, so x = 4", "2 + 2 = x, so y = 5", "10 - 4 = x. Then 3 = 3",
    "2 + 2 = 4, no more than 5", "2 + 2 = 4, not 5", "2 + 2 = 4, so Tom has no more than 5", "2 + 2 = 4, no, 4",
    "3 * 4 = 12, no, 3 * 5 = 15", "2 + 2 = 4, 5 more than that is 9",
    "½ + ½ = 1", "1½ + 1½ = 3", "2 ½ + 2 ½ = 5", "2 + 2 = four", "two plus two equals four", "18 / 2 = nine each",
    "200 + 5 = two hundred and five", "the two + 3 = 8", "each one + 12 = 45", "1 / 3 = one third", "1 / 2 = a half",
    "he has two weeks seven times 2 equals 14", "five quarters equals $100",
    "√16 = 4", "√2 = 1.41", "√10 = 3.16", "√2 * √2 = 2", "∛27 = 3", "the square root of 9 + 16 = 5", "√10 ≈ 3",
    "2{,}000 + 1 = 2001", "1,00,000 + 1 = 100001", "1,5 + 1,5 = 3", "2,5 * 2 = 5", "1.200,50 + 300 = 1.500,50",
    "12:4 = 3", "12 : 4 = 6 : 2", "Answer: 4 = 3+1", "It is 12:30 and 4 = 3 + 1", "Ratio 3:4 = 6:8",
    "He has 5 — 3 + 2 = 5", "200 + 15% = 230", "24 degrees / 3 degrees/5% more = 8",
    "10 + 4 = 2:00", "8 + 4 = 12:00", "60 * 9 = 540 = 9:00", "5:30 - 3:00 = 2:30", "7:00 + 90 minutes = 8:30",
    "11:30 + 2 hours = 1:30", "1 hour + 90 = 8:30",
    "2 + 2 is 4", "2 + 2 is equal to 4", "20% of 50 is 10", "3 + 4 is 2 more than 5", "3 * 4 is 12 out of 20",
    "3 + 4 is 7, which is 2 more than 5", "A 4 x 6 photo is 5 dollars", "Kids aged 3-4 are 5 dollars", "6 is 2 * 3",
    "600/(3+1=4) = 150", "1. 2 + 2 = 4", "It costs 5. * 2 = 10", "x = 4, = 4", "2 + 2 = 4, = 4 apples", "*2*3 = 6",
    "*2 * 3 = 6*", "2 + 2 =\u200b4", "4\u200b5 + 1 = 46",
]  # fmt: skip


def holds(text: str) -> list[bool | None]:
    return [equation.holds for equation in equations(text)]


@pytest.mark.parametrize("text", [pytest.param(text, id=f"row: {text}") for text in FALSE_ROWS])
def test_rows_of_the_list_that_are_false(text: str):
    assert False in holds(text)
    (verdict,) = EquationsDefense().screen(Received.texts([f"<think>{text}</think><answer>7</answer>"]))
    assert verdict.decision == "reject"


@pytest.mark.parametrize("text", [pytest.param(text, id=f"row: {text}") for text in TRUE_ROWS])
def test_rows_of_the_list_that_are_true(text: str):
    assert True in holds(text) and False not in holds(text)


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=f"{kind}: {text}") for kind, texts in FALSE.items() for text in texts]
)
def test_false_neighbors(text: str):
    assert False in holds(text)


@pytest.mark.parametrize("text", TRUE)
def test_true_neighbors(text: str):
    assert False not in holds(text)


SPANS = [
    ("so 2 +\u200b 2 = 5\u0336 apples", "2 +\u200b 2 = 5\u0336"), ("so 2 &plus; 2 = 5.", "2 &plus; 2 = 5"),
    ("\u200b\u200b2{,}000 + 1 = &#53; pens", "2{,}000 + 1 = &#53;"), ("Tom: two plus two is five!",
    "two plus two is five"),
    ("1.200,50 + 1 = 3 now", "1.200,50 + 1 = 3"), ("<<1+1=2>> 2 + 2 = x = 5!", "2 + 2 = x = 5"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "span"), SPANS)
def test_spans_lie_in_the_text_that_was_given_and_not_in_the_folded_one(text: str, span: str):
    (wrong,) = (equation for equation in equations(text) if equation.holds is False)
    assert text[wrong.start : wrong.end] == span


@given(st.text(alphabet=st.sampled_from("ab12\u0665½\u200b\u0301\u0338=≡&#53;{},.~<s>/\n\U0001f51f"), max_size=60))
def test_every_character_of_a_folded_text_knows_its_place(text: str):
    folded = fold(text)
    assert len(folded.origins) == len(folded.text) + 1 and folded.origins[-1] == len(text)
    assert list(folded.origins) == sorted(folded.origins)
    same = [index for index, origin in enumerate(folded.origins[:-1]) if folded.text[index] == text[origin]]
    assert all(folded.text[index] in text for index in same)


def open_spellings() -> list[str]:
    """The examples of the table of open spellings in the documentation."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "defenses.md").read_text(encoding="utf-8")
    table = page.partition("| open spelling |")[2].partition("\n\n")[0]
    return [html.unescape(example) for row in table.splitlines()[2:] for example in re.findall("`([^`]+)`", row)]


@pytest.mark.parametrize("text", open_spellings())
def test_what_the_documentation_calls_open_is_open(text: str):
    assert False not in holds(text)


def test_what_the_documentation_calls_true_and_rejected_is_rejected():
    page = (Path(__file__).resolve().parents[1] / "docs" / "defenses.md").read_text(encoding="utf-8")
    table = page.partition("| true and rejected |")[2].partition("\n\n")[0]
    examples = re.findall("`([^`]+)`", table)
    assert examples and all(False in holds(text) for text in examples)


NUMERALS = [
    ("five", "5", 1), ("twenty-one", "21", 1), ("twenty one pens", "21", 2), ("two hundred and five", "205", 4),
    ("one million two thousand", "1002000", 4), ("three quarters", "3/4", 2), ("two-thirds of", "2/3", 1),
    ("two and two", "2", 1), ("two two", "2", 1), ("twenty five hundred", "2500", 3), ("two dozen", "24", 2),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "length"), NUMERALS)
def test_numbers_in_words(text: str, value: str, length: int):
    read = number_in_words(text.split())
    assert read is not None and (str(read[0]), read[1]) == (value, length)


@pytest.mark.parametrize("text", ["", "hundred", "and two", "pens", "twenty-twenty", "ten-two"])
def test_words_that_are_no_numbers(text: str):
    assert number_in_words(text.split()) is None


RUN_ON = "2 + 2 = 4 + 1 = 5"


def test_row_of_the_list_a_chain_that_runs_on_is_never_accepted_and_its_sentence_is_muted(base_policy):
    """2 + 2 = 4, then 4 + 1 = 5: every step is right, and 2 + 2 is said to be 5."""
    texts = [f"<think>It is {RUN_ON}. Then 3 + 4 = 7.</think>", "2 + 2 = 3 + 1 = 4", f"{RUN_ON}. 2 + 2 = 5"]
    run_on, right, wrong = EquationsDefense().screen(Received.texts(texts))
    assert [each.decision for each in (run_on, right, wrong)] == ["abstain", "accept", "reject"]
    assert run_on.reason == "2 + 2 = 4 + 1 holds for its first number alone"

    texts = [texts[0], f"<think>It is {RUN_ON}. Then 3 + 4 = 8.</think>"]
    evidence = replace(Received.texts(texts), model=base_policy)
    verdicts = EquationsDefense(unit="sentence").screen(evidence)
    for submission, verdict, lost in zip(evidence.submissions, verdicts, ["", " Then 3 + 4 = 8."], strict=True):
        ids = base_policy.codec.received_ids(submission.completion)
        muted = base_policy.codec.tokenizer.decode([ids[token] for token in verdict.muted])
        assert (verdict.decision, muted) == ("accept", f"<think>It is {RUN_ON}.{lost}")


HOSTILE = [
    "2 + 2 is ", "1+1 is 1", "x = ", "= x", "1+1=x=", "=\n", "|1", "| 1 | = ", "½", "½ + ", "→", "1+1→1 ", "√", "√1=",
    "two ",
    "two plus two is ", "one hundred ", "1.200,5 + ", "1.2+1,3=", "0x1=", "1:1 = ", "1 : 1 = ", "=4, no, ", "=4, no, 5",
    "= no less than 5 ", "<b>", '<span a="b"', "<b a=", "&#53;", "&", r"\textcolor{", r"\textcolor{a}{", "1{,}", "~~a",
    "1~", "\u200b", "5\u0336", "\u0665", "⑤=", "1_1", "(1)_2=", "100% - 1% = ", "a=1+", "2 of 1 is",
    "1%c²!:x|√—two=1,5 ",
    "1+" * 40 + "1%=two ", "1+" * 200 + "1% = √5:2|two — 1,5 ",
]  # fmt: skip
SECONDS = 1.0  # of the processor for 4,000 characters; the slowest takes 0.1 s, on two cores that others use


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("tail", ["=4", ")" * 1000 + "=4"])
def test_hostile_spellings_cost_little(piece: str, tail: str):
    text = (piece * (4000 // len(piece) + 1))[: 4000 - len(tail)] + tail
    started = time.process_time()
    equations(text)
    assert time.process_time() - started < SECONDS


def test_doubtful_equations_are_read_in_other_ways_as_long_as_there_are_few():
    few, many = "12 : 4 = 3\n" * 20, "5 = 3 - x\n12 : 4 = 3\n1 = 2\n" * 200
    assert False not in holds(few)
    wrong = [equation for equation in equations(many) if equation.holds is False]
    assert len(wrong) > 200 and wrong[-1].right == "2"
