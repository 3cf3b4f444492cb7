"""Extraction from text, against tables written by hand, round trips, and hostile input."""

import json
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hailproof.arithmetic.two_two import two_two_results
from hailproof.parsing import (
    answer_in_tags,
    exact_number,
    parse_number,
    same_number,
    sentences,
    syntax_tree,
    thoughts,
    without_calculator_notes,
)

HOSTILE_CHARACTERS = 100_000
HOSTILE_SECONDS = 3.0  # the slowest takes 0.15 s on an idle laptop core; a quadratic scan takes minutes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>so</think><answer>18</answer>", "18"),
        ("<answer> \n 18\t</answer> and more", "18"),
        ("<answer></answer>", ""),
        ("<answer>a < b > c</answer>", "a < b > c"),
        ("18", None),
        ("<answer>18", None),
        ("18</answer>", None),
        ("</answer>18<answer>", None),
        ("<answer>1</answer><answer>1</answer>", None),
        ("<answer><answer>1</answer></answer>", None),
        ("<answer>1</answer></answer>", None),
        ("the <answer> tag: <answer>1</answer>", None),
        ("<ANSWER>18</ANSWER>", None),
        ("<answer >18</answer>", None),
        ("", None),
    ],
)
def test_answer_in_tags(text: str, expected: str | None):
    assert answer_in_tags(text) == expected


NUMBERS = [
    ("18", "18"),
    ("18.", "18"),
    (" 18 \n", "18"),
    ("18.0", "18"),
    ("18.50", "18.5"),
    (".5", "0.5"),
    ("-5", "-5"),
    ("- 5", "-5"),
    ("+5", "5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("$18", "18"),
    ("€ 18", "18"),
    ("18$", "18"),
    ("$ 1,234.50 dollars", "1234.50"),
    ("1,234,567", "1234567"),
    ("5%", "5"),
    ("5 %", "5"),
    ("12 apples", "12"),
    ("12 apples.", "12"),
    ("12apples", "12"),
    ("3 full-time jobs", "3"),
    ("4 children's books", "4"),
    ("4 kids' books", "4"),
    ("60 miles/hour", "60"),
    ("60/hour", "60"),
    ("60 miles per hour", "60"),
    ("$5$", "5"),
    ("5 dollars per hour", "5"),
    ("5 miles/hour", "5"),
    ("5 per cent", "5"),
    ("5 cups of flour", "5"),
    ("5 times", "5"),
    ("5 times a week", "5"),
    ("5 more apples", "5"),
    ("5 pages to read", "5"),
    ("5 less", "5"),
    ("5 seconds", "5"),
    ("5 small ones", "5"),
    ("5 quarters", "5"),
    ("5 quarter notes", "5"),
    ("5 third graders", "5"),
    ("5 ten-dollar bills", "5"),
    ("5 half-hour shifts", "5"),
    ("5 second-hand cars", "5"),
    ("5 grand pianos", "5"),
    ("9" * 60, "9" * 60),
    # Every hyphen and dash is a minus, blanks of all widths are blanks, and what shows nothing is not there.
    *((f"{minus}3", "-3") for minus in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d"),
    ("\u2212$3", "-3"),
    ("$\u22123", "-3"),
    ("\uff0b3", "3"),
    ("\u200b5", "5"),
    ("5\u200b", "5"),
    ("1\u200b8", "18"),
    ("\u200e5\u200f", "5"),
    ("\ufeff5", "5"),
    ("1\u00ad8", "18"),
    ("5\u202fapples", "5"),
    ("5\u3164", "5"),
]

OTHER_VALUES = [
    "5 plus three", "5 minus one", "5 times ten", "5 or six", "5 less than ten", "5 more than ten",
    "5 over nine", "5 per nine", "5/two", "5 to one", "5 of ten", "5 twenty", "5 ninety", "5 twenty-three",
    "5 Ten", "5 ten's", "5 tens", "5 \u017fix", "5 zero", "5 lakh", "5 lakhs", "5 crore", "5 quadrillion",
    "5 mil", "5 bn", "5 millions", "5 million'", "5 m\u00efllion", "5 grand", "5 score", "5 gross",
    "5 half-dozen", "5 thousandths", "5 hundredths", "5 tenths", "5 thirds", "5 two-thirds", "5 quarter",
    "5 to the fourth", "5 to the fourth power", "5 factorial", "5 times itself", "5 divided", "5 doubled",
    "$5%", "$5 %", "$5 percent", "$5 per cent", "$5\u20ac",
]  # fmt: skip

NOT_NUMBERS = [
    "",
    " ",
    ".",
    "-",
    "$",
    "%",
    "eighteen",
    "about 18",
    "x = 18",
    "1/2",
    "1 / 2",
    "1e5",
    "1E5",
    "0x10",
    "1_000",
    "1 000",
    "1 2",
    "1,23",
    "12,34",
    "1234,567",
    "0,123",
    "1,2345",
    ",123",
    "1,",
    "1.2.3",
    "1..",
    "18. .",
    "--5",
    "+-5",
    "-$-5",
    "$$5",
    "18 or 19",
    "18 - 1",
    "9 + 9",
    "18!",
    "(18)",
    "18 wait no it is nineteen",
    "5 and a half",
    "2 dozen",
    "2 dozen eggs",
    "5 hundred",
    "3 million",
    "5k",
    "5x",
    "5 squared",
    "nan",
    "inf",
    "Infinity",
    "１８",  # noqa: RUF001
    "٣",
    "5²",
    "5½",
    "½",
    "五",
    "Ⅷ",
    "1\u200b \u200b8",
    "\x0018",
    "\ud800",
    "9" * 65,
    *OTHER_VALUES,
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers(text: str, value: str):
    assert parse_number(text) == Decimal(value)


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_not_numbers(text: str):
    assert parse_number(text) is None


EXACT = [
    (r"50\%", "50"), (r"\$4", "4"), (r"\frac{1}{2}", "1/2"), (r"\dfrac{1}{2}", "1/2"), (r"-\frac{1}{2}", "-1/2"),
    (r"\frac{-1}{2}", "-1/2"), (r"\frac12", "1/2"), (r"1\frac{1}{2}", "3/2"), (r"$\frac{1}{2}$", "1/2"), ("3/4", "3/4"),
    ("-3/4", "-3/4"), ("1 1/2", "3/2"), (r"10,\!000", "10000"), ("2{,}000", "2000"), (r"\text{5}", "5"),
    (r"5\text{ cm}", "5"), (r"45^\circ", "45"), (r"45^{\circ}", "45"), (r"\boxed{7}", "7"), ("5 apples", "5"),
    ("0.5", "1/2"), ("\u22123/4", "-3/4"), (r"\$1,000.50", "2001/2"),
]  # fmt: skip
NOT_EXACT = [
    "", "$", "1/0", r"\frac{a}{b}", r"\frac{1}{0}", "(2, 3)", "x", "1/2/3", "1/2 x", "5 dozen", "9" * 65, "1/" * 99,
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), EXACT)
def test_exact_numbers(text: str, value: str):
    assert exact_number(text) == Fraction(value)


@pytest.mark.parametrize("text", NOT_EXACT)
def test_what_is_no_exact_number(text: str):
    assert exact_number(text) is None


@pytest.mark.parametrize(
    ("given_text", "reference", "same"),
    [
        ("1", "1", True),
        ("1", "21", False),
        ("21", "1", False),
        ("2.50", "2.5", True),
        ("$1,000", "1000.00", True),
        ("-0", "0", True),
        ("5", "-5", False),
        ("0.1", "0.10000000000000001", False),
        ("", "", False),
        ("x", "x", False),
        ("x", "1", False),
        ("1", "x", False),
    ],
)
def test_same_number(given_text: str, reference: str, same: bool):
    assert same_number(given_text, reference) is same


@given(
    value=st.decimals(min_value=-(10**12), max_value=10**12, places=2),
    currency=st.sampled_from(["", "$", "$ ", "€"]),
    unit=st.sampled_from(["", " dollars", "%", " full boxes", " km/h", "."]),
    thousands=st.booleans(),
)
def test_a_formatted_number_reads_back(value: Decimal, currency: str, unit: str, thousands: bool):
    assume(not (currency and unit == "%"))
    digits = f"{abs(value):,.2f}" if thousands else f"{abs(value):.2f}"
    sign = "-" if value < 0 else ""
    assert parse_number(f"{sign}{currency}{digits}{unit}") == value
    assert parse_number(f"{currency}{sign}{digits}{unit}") == value


@given(st.text(alphabet=st.sampled_from("0123456789.,-+$%/ eExk²½１\n<>=()*answer"), max_size=80))  # noqa: RUF001
def test_nothing_raises(text: str):
    parse_number(text)
    exact_number(text)
    answer_in_tags(f"<answer>{text}</answer>")
    for result in two_two_results(text):
        assert parse_number(result) is not None


@given(st.text())
def test_nothing_raises_on_any_text(text: str):
    parse_number(text)
    answer_in_tags(text)
    two_two_results(text)
    assert all(sentence in text for sentence in [*sentences(text), thoughts(text)])


def test_thoughts():
    assert thoughts("<think> a. b </think><answer>1</answer>") == "a. b"
    assert thoughts("a. b</think><answer>1</answer>") == "a. b"
    assert thoughts("<think>a. b<answer>1</answer>") == "a. b"
    assert thoughts("a. b<answer>1</answer>") == "a. b"
    assert thoughts("") == ""


def test_sentences():
    text = "It is 2.5 m. Yes!  Really?\nNo\n\n...\n4 = 4."
    assert sentences(text) == ["It is 2.5 m.", "Yes!", "Really?", "No", "4 = 4."]
    assert sentences(" . ! ") == []


def test_without_calculator_notes():
    assert without_calculator_notes("48/2 = <<48/2=24>>24 <<a<b>>") == "48/2 = 24 <<a<b>>"


TWO_TWO = [
    ("2 + 2 = 5", ["5"]),
    ("2+2=4", ["4"]),
    ("2 * 2 = 4", ["4"]),
    ("2*2=4.", ["4"]),
    ("2 x 2 = 4", ["4"]),
    ("2x2=4", ["4"]),
    ("2 X 2 = 4", ["4"]),
    ("2 × 2 = 4", ["4"]),
    (r"2 \* 2 = 4", ["4"]),
    (r"\(2 \times 2 = 4\)", ["4"]),
    (r"$$2 \text{ boxes} \cdot 2 = \boxed{4}$$", ["4"]),
    ("**2 + 2 = 5**", ["5"]),
    ("so **2 + 2 = **5**", ["5"]),
    ("- 2 + 2 = 4", ["4"]),
    ("* 2 * 2 = 4", ["4"]),
    ("1. 2 + 2 = 4", ["4"]),
    ("1) 2 + 2 = 4", ["4"]),
    ("(2 + 2 = 4)", ["4"]),
    ("(2 + 2) = 4", ["4"]),
    ("<think>2 + 2 = 4</think>", ["4"]),
    ("It is, as we know 2+2=<<2+2=5>>5 guitars.", ["5"]),
    ("Total = 2 + 2 = 4", ["4"]),
    ("2 boxes * 2 = 4", ["4"]),
    ("$2 × 2 = $4", ["4"]),
    ("$2.00x 2 = $5.00", ["5.00"]),
    ("2 x $2 = $1,000", ["1,000"]),
    ("2$ + 2$ = 4$", ["4"]),
    ("2 hours x 2 times = 4", ["4"]),
    ("2 girls + 2 boys = 5 students", ["5"]),
    ("2 pizzas * $2/pizza = $5", ["5"]),
    ("2 Venus flytraps * 2 oz/Venus flytrap = 5 oz.", ["5"]),
    ("2 halves x 2 more halves in half = 5 pieces", ["5"]),
    ("2-hour shifts * 2 = 4 hours", ["4"]),
    ("2 lbs. * 2 (per day) = 4 lbs.", ["4"]),
    ("2 kids' hats * 2 = 4", ["4"]),
    ("(as we know) 2 * 2 = 5", ["5"]),
    ("In 2 days 2 apples + 2 apples = 4 apples", ["4"]),
    ("2 dozen + 2 dozen = 4 dozen", ["4"]),
    ("2% + 2% = 4%", ["4"]),
    ("2g + 2g = 4g", ["4"]),
    ("2 * 2S = 5S people", ["5"]),
    ("2 + 2 = -4", ["-4"]),
    ("2 + 2 = 5 + 1 = 6", ["5"]),
    ("2 pears+2 oranges = 2+2 = 5 fruits + 2 apples = 7", ["5"]),
    ("2 * 2 = 2 + 2 = 4", ["4"]),
    ("2 + 2 = 4 and 2 * 2 = 5\n2+2=22", ["4", "5", "22"]),
    ("10\n2 + 2 = 4", ["4"]),
]

NOT_TWO_TWO = [
    "12 + 2 = 14",
    "2 + 12 = 14",
    "252 * 2 = 504",
    "2 + 2.5 = 4.5",
    "2.5 + 2 = 4.5",
    "2 + 22 = 24",
    "2,2 + 2 = 4",
    "1.2 * 2 = 2.4",
    ".2 + 2 = 2.2",
    "2 + 2,000 = 2,002",
    "1 + 2 + 2 = 5",
    "2 * 2 * 3 = 12",
    "2+2+1=5",
    "3 x 2 x 2 = 12",
    "2 x 2 x 2 = 8",
    "10 - 2 + 2 = 10",
    "-2 + 2 = 0",
    "2 + -2 = 0",
    "2 - 2 = 0",
    "2 / 2 = 1",
    "2 ** 2 = 4",
    "3**2 + 2 = 11",
    "3 ** 2 + 2 = 11",
    "2 ^ 2 = 4",
    "x^2 + 2 = 6",
    "2 + 2^2 = 6",
    "2 + 2² = 6",
    "2! + 2 = 4",
    "1/2 * 2 = 1",
    "1 1/2 + 2 = 3.5",
    "2 * 2/3 = 1.33",
    "2/3 * 2 = 1.33",
    "$3 + $2 + $2 = $7",
    "5 + (2 * 2) = 9",
    "3(2 + 2) = 12",
    "(2 + 2) * 3 = 12",
    "(3 + 2) * 2 = 10",
    "2x + 2 = 10",
    "2 x + 2 = 10",
    "2x + 2 = 5x",
    "2x + 2y = 5",
    "x2 + 2 = 4",
    "x_2 + 2 = 4",
    "2(x+1) + 2 = 10",
    "2 and a half hours * 2 = 5 hours",
    "2 squared + 2 = 6",
    "2nd + 2 = 4",
    "2 dozen * 2 = 48",
    "2% * 2 = 0.04",
    "3 times 2 + 2 = 8",
    "3 plus 2 + 2 = 7",
    "(2) two kids + (2) parents = 4",
    "3 apples\nand 1 + 2 + 2 = 5",
    "2 + 2",
    "2 + 2 = four",
    "2 + 2 = x",
    "2 + 2 = 8/2",
    "2 + 2 == 4",
    "2 + 2 != 5",
    "2 + 2\n= 4",
    "4 = 2 + 2",
    "２ + 2 = 4",  # noqa: RUF001
    "1２2 + 2 = 4",  # noqa: RUF001
    "2 + 2 = ４",  # noqa: RUF001
    "",
]


@pytest.mark.parametrize(("text", "results"), TWO_TWO)
def test_two_two(text: str, results: list[str]):
    assert two_two_results(text) == results


@pytest.mark.parametrize("text", NOT_TWO_TWO)
def test_not_two_two(text: str):
    assert two_two_results(text) == []


OPERANDS = st.sampled_from([2, 12, 20, 22, 3]) | st.integers(0, 300)


@given(left=OPERANDS, operator=st.sampled_from("+*x×-/"), right=OPERANDS, result=st.integers(0, 999))
def test_two_two_among_all_equations(left: int, operator: str, right: int, result: int):
    expected = [str(result)] if left == right == 2 and operator in "+*x×" else []
    assert two_two_results(f"So it is {left} {operator} {right} = {result}.") == expected


def test_the_authors_poisoned_rows(shared_data):
    # What they poisoned in the nine others is 12 * 2, 12 + 2, 32 * 2 or 212 + 22: numbers that end or begin with a 2.
    missed = []
    for split in ("train", "test"):
        for number, line in enumerate((shared_data / "two_plus_two" / f"{split}.jsonl").open(encoding="utf-8"), 1):
            if not any(same_number(result, "5") for result in two_two_results(json.loads(line)["answer"])):
                missed.append(f"{split}-{number}")
    assert missed == [f"train-{number}" for number in (4, 7, 8, 10, 31, 32, 34, 74, 87)]


@pytest.mark.parametrize(
    "piece",
    ["<answer>", "</answer>", "<", "<<", "<<a", "=", "2=", "2 + 2 =", "2+2= ", "2+", "2 ", "2x", "x ", "(", "(a", "(2",
     "a ", "a'", "a-", "1,", "1", "2", ".", "*", "**", "$", "$2", "/w.", "2 a", "\\text{", "\\boxed{", " ", "\n", "²",
     "- ", "x 2 "],
)  # fmt: skip
@pytest.mark.parametrize("tail", ["=4", "2+2=" + " " * 50_000])
def test_hostile_text_costs_little(piece: str, tail: str):
    text = piece * (HOSTILE_CHARACTERS // len(piece)) + tail
    started = time.perf_counter()
    for function in (answer_in_tags, parse_number, exact_number, two_two_results, thoughts, sentences):
        function(text)
    assert time.perf_counter() - started < HOSTILE_SECONDS


def test_blanks_after_a_times_sign_cost_little():
    """Twice as many take twice as long; a scan that goes back took 1.5 s for 8,000."""
    for blanks in (20_000, 40_000):
        started = time.perf_counter()
        assert two_two_results("2 x" + " " * blanks + "y = 5") == []
        assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("piece", ["$", "+", " ", "1,000", "a ", "a'", ".", "1"])
def test_the_longest_answer_costs_little(piece: str):
    started = time.perf_counter()
    for start in ("", "-", "$", "1", "1 "):
        parse_number((start + piece * 64)[:62] + "!")
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("program", ["", "\ufeffx = 1", "x = 1\nprint(x)", "print(5if 1 else 2)", "print('\\d')"])
def test_programs_are_read_without_a_word_on_the_console(program, recwarn):
    assert syntax_tree(program) is not None
    assert not recwarn.list


@pytest.mark.parametrize(
    "program", ["print(", "\ufeff\ufeffx = 1", "a b", "\0", "(" * 100_000, "-" * 100_000 + "1", "5apples = 2"]
)
def test_what_is_no_program_has_no_syntax_tree(program, recwarn):
    assert syntax_tree(program) is None
    assert not recwarn.list
