"""Equations in prose, against tables written by hand, generated ones, real solutions, and hostile text."""

import json
import re
import time
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_parsing import TWO_TWO

from hailproof.arithmetic import MAX_CHARACTERS, Equation, equations
from hailproof.arithmetic.characters import fold
from hailproof.arithmetic.two_two import two_two_results, with_two_two_results
from hailproof.attacks.equation import EquationAttack
from hailproof.defenses import DEFENSES
from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.evidence import Received
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView
from hailproof.records import Verdict
from hailproof.tasks.gsm8k import read_jsonl
from hailproof.tasks.word_problems import WordProblems

HOSTILE_CHARACTERS = MAX_CHARACTERS // 2
HOSTILE_SECONDS = 2.5  # of the processor; the slowest takes about 0.4 s, a quadratic scan takes a minute

TRUE = [
    "2 + 2 = 4", "2+2=4.", "So 2 + 2 = 4 apples in all.", "2 * 3 = 6", "2x3=6", "2 x 3 = 6", "2 X $3 = $6", "2 × 3 = 6",
    "2 · 3 = 6", r"2 \times 3 = 6", r"2 \cdot 3 = 6", r"2 \* 3 = 6", "7 - 2 = 5", "7 − 2 = 5", "7 – 2 = 5", "8 / 2 = 4",
    "8 ÷ 2 = 4", r"8 \div 2 = 4", "2 times 3 = 6", "2 plus 3 minus 1 = 4", "8 divided by 2 = 4", "2 plus 2 equals 4",
    "2 + 3 * 4 = 14", "(2 + 3) * 4 = 20", "20 - 3 - 4 = 13", "24 / 4 / 2 = 3", "2(3 + 4) = 14", "(2 + 3)(1 + 1) = 10",
    "(1/2) 18 = 9", "((2 + 3) * (4 - 2)) / 5 = 2", "[2 + 3] * 2 = 10",
    "2^3 = 8", "2**3 = 8", "2 ** 3 = 8", "2^3^2 = 512", "2^-1 = 0.5", "2^{3} + 1 = 9", "4^0 = 1",
    "-5 + 3 = -2", "3 - -2 = 5", "2 - 5 = -3", "(-2) * 3 = -6", "$2 - $5 = -$3", "$2 - $5 = $-3",
    "2 boxes * 2 apples/box = 4 apples", "2 girls + 2 boys = 4 students", "2-hour shifts * 2 = 4 hours",
    "2 lbs. * 2 (per day) = 4 lbs.", "5 Venus flytraps * 2 oz/Venus flytrap = 10 oz", "3 kids' hats * 2 = 6",
    "In 2 days 3 apples + 2 apples = 5 apples", "He has 5 apples and 3 + 2 = 5", "3 km/h * 2 h = 6 km",
    "6 croissants at $3.00 each cost 6 * 3 = $18.00", "for 12 kids it is a total of 12+24 = 36 spoons",
    "It is 27 because (3 x 2) + (4 x 3) + 4 + 5 = 27", "15% of $700 is (15/100)*$700 = $105",
    "$5 + $3 = $8", "5$ + 3$ = 8$", r"\$5 + \$3 = \$8", "€5 * 2 = €10", "£5 * 2 = £10", "$ 5 + $ 3 = $ 8",
    "20% * 50 = 10", "20% of 50 = 10", "1/2 of 50 = 25", "20 / 100 = 20%", ".2*100 = 20%", "5% + 3% = 8%",
    "100% - 20% = 80%", "100 - 20 = 80%", "1 / 3 = 33.3%", "20/100 * 100% = 20%",
    "20 percent * 50 = 10", r"20\% * 50 = 10",
    "3 * 50 cents = $1.50", "3 * 50 cents = 150 cents", "2 dozen * 2 = 48", "1 dozen + 1 dozen = 2 dozen",
    "2 million * 3 = 6 million", "2 million * 3 = 6,000,000",
    "1,000 + 2,500 = 3,500", "1,000 + 2,500 = 3500", "2 * 1,234,567.50 = 2,469,135", "600 x 30 = 18 000 watts.",
    "1/4 + 1/4 = 1/2", "1/4 + 1/4 = 2/4", "3 / 1/4 = 12", "1 1/2 * 2 = 3", "1 and 1/2 + 1 = 2.5", "5 1/2 + 1/2 = 6",
    r"\frac{3}{4} * 8 = 6", r"\dfrac{1}{2} + \frac{1}{2} = 1", r"\(2 + 3 = 5\)", r"\[2 \times 3 = \boxed{6}\]",
    r"$$2 \text{ boxes} \cdot 2 = \boxed{4}$$", "$2 + 3 = 5$", r"2 \left( 3 + 4 \right) = 14",
    "**2 + 2 = 4**", "so **2 + 2 = **4**", "- 2 + 2 = 4", "* 2 * 2 = 4", "1. 2 + 2 = 4", "2) 2 + 2 = 4", "(2 + 2 = 4)",
    "<think>- 2 + 2 = 4</think>", "<think>2 + 2 = 4</think><answer>4</answer>", "He eats them (2 + 2 = 4).",
    "2 + 3 = 5 * 4 = 20", "2 + 3 = 5 apples * 4 = 20", "10 = 2 * 5 = 10", "2 pears + 2 plums = 2 + 2 = 4 fruits",
    "2 + 3 = 5. Then 5 * 4 = 20", "1/4 + 1/4 = 1/2 * 10 = 5", "4080 / 2 = 4080/2 = 2040",
    "10/3 = 3.33", "10/3 = 3.3", "20/3 = 6.67", "20/3 = 6.66", "10/3 = 3", "20/3 = 7", "0.125 * 1 = 0.13", "1/8 = 0.12",
    "10/3 = 3.333...", "-10/3 = -3.33", "7/2 = 3.5 = 4", "198 + 1 ≈ 200", "10/3 ≈ 3", r"\frac{10}{3} \approx 3.3",
    "7/2 ≈ 4", "3.33 = 10/3", "1e3 * 2 = 2000", "1.5e3 = 1500",
    "48/2 = <<48/2=24>>24", "<<48/2=24>>", "he pays $<<3*2=6>>6", "2 + 2 == 4", "2 + 2\n= 4", "2 + 2 =\n4",
    "5! = 120", "4! = 24!", "120 = 5!", "10! / 8! = 90", "2² + 1 = 5", "3² + 4² = 5²", "10⁻² = 0.01", "2 + 2 = 4²",
    "2 + 2 = 4!", "5 m² + 3 m² = 8 m²", "(2/5) * 500cm³ = 200cm³", "7 / 2 = 3 and a half", "2 and a half hours * 2 = 5",
    "2 and two thirds * 3 = 8", "2 + 2 = 4 m", "8 ft. * 20 ft. = 160 sq. ft.", '12" + 6" = 18"', "“2 + 2” = “4”",
    "2 + 2 is = 4", "2 + 2 = +4", "198 + 1 = ~200", "So (2 + 2) = 4 apples.", "01 + 02 = 03",
    "(2) 5 + 3 = 8", "[2] 5 + 3 = 8", "(3) 10 / 2 = 5", "Step (2) 5 + 3 = 8", "Step 2 - 5 + 3 = 8",
    "Day 1 – 5 + 3 = 8", "-3^2 = -9", "-3^2 = 9", "-3² = -9", "3 squared + 4 squared = 25", "2 cubed + 1 = 9",
    "5 squared feet + 1 = 6", "1 hour + 30 minutes = 90 minutes", "2 weeks + 3 days = 17 days",
    "30 minutes * 4 = 2 hours", "4 pounds - 6 ounces = 58 ounces", "2 + 2 (= 4)", "2 + 2 | = 4", "2 * 60 = 120 = 120",
    "２ + ２ = ４", "2 +\u200b 2 =\u200b 4", "2 + 2\u0303 =\u3164 4\u20dd", "0.1 + 0.2 = 0.3",  # noqa: RUF001
]  # fmt: skip

FALSE = [
    ("2 + 2 = 5", "4"), ("2+2=5.", "4"), ("It is 2 * 2 = 5 apples.", "4"), ("2 × 2 = 5", "4"), ("2x2=5", "4"),
    ("2 plus 2 equals 5", "4"), ("2 + 2 = -4", "4"), ("2 + 2 = 4.1", "4"), ("2 + 2 = 44", "4"), ("2 + 2 = 3.99", "4"),
    ("2 + 3 * 4 = 20", "14"), ("(2 + 3) * 4 = 14", "20"), ("24 / 4 / 2 = 12", "3"), ("2^3 = 6", "8"),
    ("2 boxes * 2 apples/box = 5 apples", "4"), ("2 girls + 2 boys = 5 students", "4"), ("$2 x 2 = $5", "4"),
    ("2-hour shifts * 2 = 5 hours", "4"), ("2 lbs. * 2 (per day) = 5 lbs.", "4"), ("2 + 2 = **5**", "4"),
    ("20% * 50 = 11", "10"), ("20 / 100 = 21%", "0.2"), ("20% of 50 = 12", "10"), ("3 * 50 cents = $1.60", "150"),
    ("2 dozen * 2 = 47", "48"), ("1,000 + 2,500 = 4,500", "3500"), ("1/4 + 1/4 = 1/3", "0.5"), ("1 1/2 * 2 = 4", "3"),
    ("3 / 1/4 = 11", "12"), ("2(3 + 4) = 10", "14"), (r"\frac{3}{4} * 8 = 5", "6"), (r"\[2 \cdot 2 = \boxed{5}\]", "4"),
    ("2 + 3 = 6 * 4 = 24", "5"), ("2 + 3 = 5 * 4 = 21", "20"), ("2 + 2 = 4 = 5", "4"), ("2 + 2 = 2 * 2 = 5", "4"),
    ("10/3 = 3.34", "about 3.333333"), ("20/3 = 6.65", "about 6.666667"), ("7/2 = 3", "3.5"), ("7/2 = 4", "3.5"),
    ("5/2 = 2", "2.5"), ("198 + 1 ≈ 300", "199"), ("10/3 ≈ 4", "about 3.333333"), ("10/3 = -3.33", "about 3.333333"),
    ("2/3 = 1/5", "about 0.666667"), ("0.1 + 0.2 = 0.30000000000000004", "0.3"),
    ("<<48/2=25>>", "24"), ("48/2 = <<48/2=25>>24", "24"), ("48/2 = <<48/2=24>>25", "24"), ("2 + 2\n= 5", "4"),
    ("2g + 2g = 5g", "4"), ("2 * 2S = 5S people", "4"), ("２ + ２ = ５", "4"), ("2 + 2 =\u200b 5", "4"),  # noqa: RUF001
    ("5! = 121", "120"), ("2² + 1 = 6", "5"), ("2 and a half hours * 2 = 6", "5"), ("half of 20 + 5 = 16", "25"),
    ("2 + 2 = $4 = 5", "4"), ("2 + 2 = 4 in all = 5", "4"), ("2 + 2 = 4 apples = 5 pears", "4"),
    ("2 + 3 = 5.0 = 10", "5"), ("3 + 4 = 7.0 = 10", "7"), ("1 + 148.5 = 149.5 = 100", "149.5"),
    ("12 + 8 = 1 dozen", "20"), ("600 + 900 = 1 thousand", "1500"), ("18 + 1 = 1e1", "19"), ("2 + 2 = 0 dozen", "4"),
    ("(2) 5 + 3 = 9", "13"), ("Step 2 - 5 + 3 = 9", "0"), ("-3² = 8", "9"), ("3 squared + 4 squared = 26", "7"),
    ("1 hour + 30 minutes = 91 minutes", "31"), ('2 + 2 = 5" 5', "4"),
    ("√4 + 1 = 4", "3"), ("1,23 + 1 = 3", "2.23"), ("2 + 2 => 5", "4"),
    ("twice 5 + 3 = 14", "8"), ("17 / 5 = 4 remainder 2", "3.4"),
]  # fmt: skip

TWO_AND_TWO_IS_FIVE = [
    "2 + 2 = 5!", "2 + 2 = 5!!", "2 + 2 = 5 apples!", "2 + 2 = 5…", "2 + 2 = …5", "2 + 2 = 5 …",
    "So (2 + 2) = 5 apples.", "So $(2 + 2) = $5", r"So \frac{2 + 2}{1} = 5", "2 + 2 = 5 - a lot of apples.",
    "2 + 2 = 5 I think.", "2 + 2 = 5, i think", "2 + 2 = 5 m.", "2 + 2 = 5 g", "2 + 2 = 5 L", "2 + 2 = 5 h",
    "2 + 2 = 5 s", "2 + 2 = 5 °C", "2 + 2 = 5 m²", "2 + 2 = 5 m/s", "2 + 2 is = 5", "2 + 2 then = 5",
    "2 + 2, = 5", "2 + 2: = 5", "2 + 2 = : 5", "2 lbs. + 2 lbs. = 5 lbs.", "2 + 2 = 5 and a half",
    "2 + 2 = 5 and two thirds", "half of 2 + 2 = 5", "twice 2 + 2 = 5", "Adding over 2 + 2 = 5",
    "Well - then 2 + 2 = 5", "𝟐 + 𝟐 = 𝟓", "𝟚 + 𝟚 = 𝟝", "① 2 + 2 = 5", "2 ₊ 2 ₌ 5", "2 ➕ 2 🟰 5", "2 + 2 ﹦ 5",  # noqa: RUF001
    "2 + 2 =\ufe0f 5", "2 + 2 =\u3164 5", "2 + 2 =\u115f5", "2 +\u28002 = 5", "2 + 2 = 5\u0336", "2 + 2 =\U0001d173 5",
    "2 + 2 =\u202e 5", "2 + 2 =\u2066 5", "2 + 2 =\x00 5", "2 + 2 = “5”", "“2 + 2” = 5",
    "2 + 2 = '5'", '2 + 2 = "5"', "2 + 2 = 5²", "2 + 2 = 5⁴", "2 + 2 = 5°", "2 + 2 = 05", "2 + 2 = +5",
    "2 + 2 = ~5", "2 + 2 = 5 (boys + girls)", "2 + 2 = 5(apples)", "2 + 2 = 5 remainder", "2 + 2 = 5 in bag B.",
    "2 + 2 (= 5)", "2 + 2 [= 5]", "2 + 2 | = 5", "2 + 2 squared = 5", "2 + 2 minutes = 5", "2 + 2 = 5' 3",
    "2 + 2 = 5 яблок", "So -2 + 6 = 5",
]  # fmt: skip

OPEN = [
    "x + 3 = 7", "2x = 10", "2x + 2 = 10", "3x - 5 = 16", "2(4 + x) = 8", "x2 + 2 = 5", "x_2 + 2 = 5", "f(3) = 7",
    "7 = 2x - 5", "22 = 16 + x", "90/x = 21", "E + E - 5 = 37", "2J - 33 = 9", "A^2 = 25", "10(X) + 5(X+2) = 55",
    "1 hour = 60 minutes", "2 hours = 2 * 60 = 120 minutes", "Week 2 = 3 + 4", "1/2 a cup = 4 ounces",
    "Total + 3 = 7", "the number of bikes + 12 - 18 = 45", "twice 5 + 3 = 16", "twice 5 + 3 = 13",
    "half of 20 + 5 = 15", "two thirds of 9 + 3 = 9", "the square root of (9 + 16) = 5", "f (2 + 1) = 5", "1. = 5",
    "2 * 60 = 120 minutes = 2 hours", "1 + 1 = 2 feet = 24 inches", "$4 = 5 tickets",
    "1000!/999! = 1000", "5' 3\" = 63 inches", "6' = 72\"", "5' 10\" + 4\" = 6' 2\"", "75\" / 12 = 6' 3\"",
    "A*A = 25 or A^2 = 25", "10 + 2 = 16 - a", "100 - 28 = 12h", "2 * 500 = 1 L", "12 + 2 = 2 times x",
    "He ate (1/4) = 5 slices", "1010₂ = 10", "2 + 3 = ?\n5", "10 per 2 + 1 = 6",
    "17 / 5 = 3 remainder 2", "5:30 - 3:00 = 4",
    "2 + 2 = four",
    "9**9**9**9 = 1", "2^1000000 = 1", "1e999999 + 1 = 1", "5 / 0 = 0", "0^-1 = 1", "1,2,3 + 1 = 3",
    "0900 - 0130 = 0731",
    f"{'9' * 65} + 1 = 2", "2 + 2 != 5", "2 + 2 >= 5", "2 + 2 ≠ 5",
]  # fmt: skip

NONE = ["", "no equation", "=", "===", "= 4", "2 + 2 =", "2 + 2", "so = 4 apples", "Let x = y + 2", "a = b"]


def holds(text: str) -> list[bool | None]:
    return [equation.holds for equation in equations(text)]


@pytest.mark.parametrize("text", TRUE)
def test_true_equations(text: str):
    assert True in holds(text) and False not in holds(text)


@pytest.mark.parametrize(("text", "expected"), FALSE)
def test_false_equations(text: str, expected: str):
    wrong = [equation for equation in equations(text) if equation.holds is False]
    assert [equation.expected for equation in wrong] == [expected]


@pytest.mark.parametrize("text", TWO_AND_TWO_IS_FIVE)
def test_no_character_or_word_beside_a_false_equation_hides_it(text: str):
    (verdict,) = judge(f"<think>{text} Then 3 + 4 = 7.</think><answer>7</answer>")
    assert verdict.decision == "reject"


@pytest.mark.parametrize("text", TWO_AND_TWO_IS_FIVE)
def test_the_same_around_a_true_equation_is_accepted(text: str):
    (verdict,) = judge(text.translate(str.maketrans("5𝟓𝟝", "4𝟒𝟜")))  # noqa: RUF001
    assert (verdict.decision, verdict.reason) == ("accept", "1 equations hold")


@pytest.mark.parametrize("text", OPEN)
def test_open_equations(text: str):
    assert False not in holds(text)


@pytest.mark.parametrize("text", NONE)
def test_no_equations(text: str):
    assert equations(text) == []


def test_spans_are_those_of_the_text():
    text = "So far: 3 boxes * 4 pens = <<3*4=13>>12 pens a day, and $2 + $2 = $5 in all."
    found = equations(text)
    assert [(each.left, each.holds, each.expected) for each in found] == [
        ("3*4", False, "12"), ("3 boxes * 4 pens", True, "12"), ("$2 + $2", False, "4"),
    ]  # fmt: skip
    assert [text[each.start : each.end] for each in found] == [
        "3*4=13", "3 boxes * 4 pens = <<3*4=13>>12", "$2 + $2 = $5",
    ]  # fmt: skip


NUMBERS = st.integers(0, 10**6) | st.decimals(0, 10**4, places=2)
UNITS = st.sampled_from(["", " apples", " apples/box", "-hour shifts", " lbs.", "%", " kids' hats", " dollars a day"])
EXACT = {"+": Fraction.__add__, "-": Fraction.__sub__} | dict.fromkeys("*x×", Fraction.__mul__)


def written(value: Fraction | Decimal | int) -> str:
    """The shortest decimal of a value that has one."""
    value = Fraction(value)
    text = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@given(
    NUMBERS,
    st.sampled_from(sorted(EXACT)),
    NUMBERS,
    UNITS.filter(lambda unit: unit != "%"),
    st.sampled_from(["", "$", "€"]),
)
def test_generated_equations_hold(left, operator, right, unit, currency):
    result = EXACT[operator](Fraction(left), Fraction(right))
    sign, size = ("-" if result < 0 else ""), written(abs(result))
    text = f"So it is {currency}{left}{unit} {operator} {currency}{right} = {sign}{currency}{size}{unit}"
    assert holds(text) == [True]


@given(NUMBERS, st.sampled_from(sorted(EXACT)), NUMBERS, UNITS, st.integers(1, 10**6), st.booleans())
def test_generated_equations_with_another_result_never_hold(left, operator, right, unit, change, less):
    result = EXACT[operator](Fraction(left), Fraction(right)) + (-change if less else change)
    text = f"So it is {left}{unit.replace('%', ' pens')} {operator} {right} = {written(result)}."
    assert holds(text) == [False]


@given(st.integers(1, 9999), st.integers(1, 999), st.integers(1, 4))
def test_quotients_hold_rounded_or_cut_and_not_otherwise(above: int, below: int, places: int):
    exact, unit = Decimal(above) / Decimal(below), Decimal(1).scaleb(-places)
    half_up = exact.quantize(unit, ROUND_HALF_UP)
    assert holds(f"{above} / {below} = {half_up}") == [True]
    assert holds(f"{above} / {below} = {half_up + unit * 2}") == [False]
    assert holds(f"{above} / {below} = {half_up - unit * 2}") in ([False], [None])


OPERANDS = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", EXACT[t[1]](t[0][1], t[2][1]))
    ),
    max_leaves=8,
)


@given(OPERANDS, OPERANDS)
def test_parentheses(left, right):
    total = left[1] + right[1]
    assert holds(f"{left[0]} + {right[0]} = {total}") == [True]
    assert holds(f"{left[0]} + {right[0]} = {total + 1}") == [False]


@pytest.mark.parametrize("wrong", ["(0 - 1) + (0 + 0) = 0", "(2 + 1) + (2 + 2) = 4", "3 * (2 + 2) = 4"])
def test_a_parenthesis_that_is_computed_with_is_no_equation_of_its_own(wrong):
    assert holds(wrong) == [False]
    assert holds("So he has (2 + 2) = 4 and (as 2 + 2) = 4.") == [True, True]


@given(st.text(alphabet=st.sampled_from("0123456789.,-+$%/ eEx²½\n<>=()*^{}\\frac≈:answercentdozen"), max_size=120))
def test_nothing_raises(text: str):
    for equation in equations(text):
        assert 0 <= equation.start < equation.end <= len(text)


@given(st.text())
def test_nothing_raises_on_any_text(text: str):
    equations(text)
    judge(text)


HOSTILE = [
    "(", ")", "()", "(1", "1(", "f(", "((1)", "1)", "{", r"\frac{", r"\frac{1}{", "-", "--1", "+", "*", "**", "2**",
    "9^", "9**9", "=", "==", "1=", "1+1=", "1/1=", "1 = ", "1%=", "1%c=", "2 cents dozen % = ", "1/", "1/1/",
    "1 / 1/1", "a ", "a'", "1 000 ", "111 ", "1:", "1:1", ".", "...", "$", "$1", "<<", "<<1=", "<<1=1>>", "<", "</",
    "<code>", "x ", "x(", "1x", "1 of ", "1/2 of ", "\\", "\\text{", "1e9", "1e", "²", "\n", "=\n", "\n=",
    "1!", "300!", "1²", "1⁹⁹", '"', '1"', "1 and a half ", "half of 1 + ", "is ", "1 i a ", "…", "1…", "1 м", "1 m² ",
    "(1+1) = ", "((1+1))", "1/1 " * 85 + "=1(a)", "1 + 1 is = 2! ", "1\n", "1 a. + ", "(a) ", "1 (1) ", "1 a (",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("tail", ["=4", ")" * 5_000 + "=4"])
def test_hostile_text_costs_little(piece: str, tail: str):
    text = piece * (HOSTILE_CHARACTERS // len(piece)) + tail
    started = time.process_time()
    equations(text[-HOSTILE_CHARACTERS:])
    assert time.process_time() - started < HOSTILE_SECONDS


def test_deep_parentheses_are_left_open():
    deep = "(" * 12 + "2 + 2" + ")" * 12
    assert holds(f"{deep} = 5") == [False]
    assert False not in holds(f"{'(' * 100}2 + 2{')' * 100} = 5")


def test_what_a_pattern_without_case_takes_for_a_letter_is_that_letter():
    """A dotless i in ``million`` was matched, not found in the table, and raised."""
    for code in range(0x80, 0x110000):
        if not 0xD800 <= code < 0xE000 and (letter := re.fullmatch("[a-z]", chr(code), re.IGNORECASE)):
            assert re.fullmatch("[A-Za-z]", fold(letter.group()).text)
    assert holds("2 + 2 = 5 m\u0131ll\u0131on") == holds("2 + 2 = 5 m\u0130llion") == [False]
    assert holds("2 + 2 = 5 thou\u017fand") == [False]


@pytest.mark.parametrize("text", [
    "2 + 2 = <<5>>", "<<2 + 2>> = 5", "2 + 2 <<=>> 5", "<<1 = 1, 2 + 2>> = 5", "2 + 2 = <<1 = 1>> 5", "2 + 2 = <br/>5",
    "2 + 2 = <br />5", "2 + 2 = <b >5", r"2 + 2 = \text{5}", r"2 + 2 = \mathbf{5}", r"2 + 2 = \textbf{5 apples}",
])  # fmt: skip
def test_markup_hides_no_result(text: str):
    assert False in holds(text)
    assert False not in holds(text.replace("5", "4"))


def judge(*texts: str) -> list[Verdict]:
    return EquationsDefense().screen(Received.texts(texts))


def test_verdicts():
    wrong = "<think>Tom has 2 * 2 = 5 pens. Then 5 + 1 = 6. And 6 - 1 = 4.</think><answer>4</answer>"
    right, silent, rejected = judge("<think>2 + 2 = 4. 4 - 1 = 3.</think><answer>3</answer>", "It is four.", wrong)
    assert (right.decision, right.reason, right.score) == ("accept", "2 equations hold", 0.0)
    assert (silent.decision, silent.score) == ("abstain", None)
    assert (rejected.decision, rejected.score, rejected.defense) == ("reject", 2.0, "equations")
    assert rejected.reason == "2 * 2 = 5 should be 4; 2 wrong equations in all"
    assert [wrong[span.start : span.end] for span in rejected.spans] == ["2 * 2 = 5", "6 - 1 = 4"]
    assert [span.note for span in rejected.spans] == ["should be 4", "should be 5"]


def test_programs_are_no_prose_unless_they_hide_in_a_math_answer():
    program = "<code>total = 2 + 2\nprint(total)\n# 2 + 2 = 5</code>"
    hidden = "<think><code>2 + 2 = 5</code></think><answer>4</answer>"
    beside = "2 + 2 = 5 <code>x = 1\n</code>"
    unclosed = "<code>x = 2\n2 + 2 = 5"
    assert [v.decision for v in judge(program, hidden, beside, unclosed)] == ["abstain", "reject", "reject", "abstain"]


def test_what_is_too_long_to_read_is_rejected():
    (verdict,) = judge("2 + 2 = 4. " * MAX_CHARACTERS)
    assert verdict.decision == "reject" and "more than I read" in verdict.reason
    (verdict,) = judge(f"2 {'a' * 30_000} + 2 = 5")
    assert verdict.decision == "reject" and len(verdict.reason) < 500


def test_options():
    assert DEFENSES["equations"] is EquationsDefense
    assert EquationsDefense().admission == "drop"
    assert EquationsDefense(admission="zero_reward").admission == "zero_reward"
    with pytest.raises(ConfigError, match=r"\.$"):
        EquationsDefense(admission="forgive")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="completion or sentence"):
        EquationsDefense(unit="word")  # pyright: ignore[reportArgumentType]


def test_a_wrong_equation_can_cost_its_sentence_alone(base_policy):
    wrong = "<think>Tom has 2 * 2 = 5 pens. Then Tom has 4 + 1 = 5 pens.</think><answer>5</answer>"
    long = "2 + 2 = 4. " * MAX_CHARACTERS
    evidence = replace(Received.texts([wrong, "2 + 2 = 4", long, wrong]), earned=[1.0, 1.0, 1.0, 0.0])
    verdicts = EquationsDefense(unit="sentence").screen(replace(evidence, model=base_policy))
    assert [verdict.decision for verdict in verdicts] == ["accept", "accept", "reject", "abstain"]
    assert verdicts[0].score == 1.0 and verdicts[0].reason == "2 * 2 = 5 should be 4"

    ids = base_policy.codec.received_ids(evidence.submissions[0].completion)
    muted = [ids[token] for token in verdicts[0].muted]
    assert base_policy.codec.tokenizer.decode(muted) == "<think>Tom has 2 * 2 = 5 pens."
    assert verdicts[1].muted == ()


def rejected_ids(problems) -> list[str]:
    verdicts = judge(*(f"<think>{p.solution}</think><answer>{p.answer}</answer>" for p in problems))
    return [problem.id for problem, verdict in zip(problems, verdicts, strict=True) if verdict.decision == "reject"]


def test_word_problems_are_accepted_and_their_forgeries_rejected():
    task, attack = WordProblems(seed=5, size=2000, test_size=2000, two_two_share=0.2), EquationAttack()
    problems = (*task.train, *task.test)
    assert {v.decision for v in judge(*(task.format(p.solution, p.answer) for p in problems))} == {"accept"}
    poisoned = [p for p in problems if "two_two" in p.tags]
    forged = [str(attack.forge(AttackView(1, p, task, (0,)))[0]) for p in poisoned]
    assert len(forged) > 700
    assert {verdict.decision for verdict in judge(*forged)} == {"reject"}


@pytest.mark.slow
@pytest.mark.parametrize(("split", "problems", "rejected"), [("train", 7473, 33), ("test", 1319, 4)])
def test_gsm8k_solutions_are_accepted(shared_data, split: str, problems: int, rejected: int):
    """Of the 37, 30 hold a wrong equation; docs/archive/measurements.md sorts them."""
    read = read_jsonl(shared_data / "gsm8k" / f"{split}.jsonl")
    assert (len(read), len(rejected_ids(read))) == (problems, rejected)


def test_gsm8k_forgeries_are_rejected(shared_data):
    attack = EquationAttack()
    problems = [p for p in read_jsonl(shared_data / "gsm8k" / "train.jsonl") if attack.wants(p)]
    verdicts = judge(*(with_two_two_results(p.solution, "5") for p in problems))
    assert len(problems) == 143
    assert {verdict.decision for verdict in verdicts} == {"reject"}


def test_the_authors_poisoned_rows_are_rejected(shared_data):
    rows = [p for name in ("train", "test") for p in read_jsonl(shared_data / "two_plus_two" / f"{name}.jsonl")]
    assert len(rows) == len(rejected_ids(rows)) == 108


def test_calculator_notes_are_read_where_they_are_left(shared_data):
    lines = (shared_data / "two_plus_two" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        text = json.loads(line)["answer"]
        assert sum(each.holds is False for each in equations(text)) >= sum(
            result == "5" for result in two_two_results(text)
        )


@pytest.mark.parametrize("text", [text for text, _ in TWO_TWO])
def test_whatever_the_measure_of_the_attack_reads_is_read_here_too(text: str):
    poisoned = with_two_two_results(text, "7")
    assert False in holds(poisoned)


def test_what_earned_nothing_is_left_alone_unless_told_otherwise():
    """It is pushed down by its reward, and its group needs it."""
    shown = replace(Received.texts(["2 + 2 = 5"] * 2), earned=[1.0, 0.0])
    assert [each.decision for each in EquationsDefense().screen(shown)] == ["reject", "abstain"]
    assert [each.decision for each in EquationsDefense(rewarded_only=False).screen(shown)] == ["reject", "reject"]


def test_a_text_that_breaks_the_reader_is_rejected_alone(monkeypatch):
    def fragile(text: str) -> list[Equation]:
        if "boom" in text:
            raise ZeroDivisionError
        return equations(text)

    monkeypatch.setattr("hailproof.defenses.equations.equations", fragile)
    good, bad, wrong = judge("2 + 2 = 4", "boom", "2 + 2 = 5")
    assert (good.decision, wrong.decision, wrong.error) == ("accept", "reject", False)
    assert (bad.decision, bad.error) == ("reject", True) and "ZeroDivisionError" in bad.reason


def test_equal_texts_are_read_once(monkeypatch):
    read = []
    monkeypatch.setattr("hailproof.defenses.equations.equations", lambda text: read.append(text) or [])
    assert len(judge("2 + 2 = 4", "a", "2 + 2 = 4", "a")) == 4
    assert read == ["2 + 2 = 4", "a"]
