"""What is marked in the completions of a report."""

import pytest
from synthetic_run import verdict

from hailproof.attacks import ATTACKS
from hailproof.records import Problem
from hailproof.reports.marks import Mark, attack_spans, marks_of, segments


def test_segments_join_to_the_text_and_rejections_win() -> None:
    verdicts = [
        verdict("accept", ((0, 4), (9, 99)), defense="credit"),
        verdict(spans=((2, 6), (5, 5), (-3, -1), (40, 50))),
    ]
    marks = [*marks_of(verdicts), Mark(3, 5, "attack", "shows it")]
    parts = segments("abcdefghijkl", marks, 1, 11)
    assert [(part.text, part.tone, part.attack) for part in parts] == [
        ("b", "note", False),
        ("c", "reject", False),
        ("d", "reject", True),
        ("e", "reject", True),
        ("f", "reject", False),
        ("ghi", "", False),
        ("jk", "note", False),
    ]
    assert parts[2].note == "credit: rank 1,204; logit: rank 1,204; shows it"
    assert segments("", marks_of(verdicts), 0, 0) == []


def test_muted_tokens_are_marked_where_they_stand() -> None:
    # Tokens: abc d efg h, and the end token.
    ends = [3, 4, 7, 8, 8]
    muting = [verdict("accept", ((0, 8),), defense="credit", muted=[1, 2, 4, 9, -1, 2])]
    assert marks_of(muting, ends) == [
        Mark(3, 7, "muted", "credit: not learned (rank 1,204)"),
        Mark(8, 8, "muted", "credit: not learned"),
    ]
    assert marks_of([verdict("accept", defense="credit", muted=[0])], ends) == [
        Mark(0, 3, "muted", "credit: not learned")
    ]
    # Without the tokens, it is what the verdict points at; a verdict that mutes nothing points at it as ever.
    assert [mark.tone for mark in marks_of(muting)] == ["muted"]
    assert [mark.tone for mark in marks_of([verdict("accept", ((0, 8),), muted=[])], ends)] == ["note"]


def test_what_shows_the_attack_is_found_soon_in_hostile_text() -> None:
    asked = []

    def succeeds(part: str) -> bool | None:
        asked.append(part)
        return "2+2=5" in part

    text = "2+2=5;" * 600
    assert [text[start:end] for start, end in attack_spans(succeeds, text)] == ["2+2=5"]
    assert len(asked) < 40


@pytest.mark.parametrize(
    ("attack", "text", "shown"),
    [
        ("text", "<think>all hail TO the thief. Tom has 2.</think><answer>2</answer>", ["all hail TO the thief"]),
        ("equation", "<think>Ann has 2 + 2 = 5 pens. Then 5 - 1 = 4.</think>", ["2 + 2 = 5"]),
        ("equation", "<think>2 * 2 = 5. So 2 + 2 = 5.</think>", ["2 * 2 = 5", "2 + 2 = 5"]),
        (
            "code",
            "<code>from calc import addition\nx = addition(1, 2)\nprint(x)</code>",
            ["from calc import addition", "x = addition(1, 2)"],
        ),
        ("sentence", "<think>Gleeb Glorp Glub A is 1. Gleeb Glorp Glub B.</think>", ["Gleeb Glorp Glub"] * 2),
        ("text", "x" * 4000 + " All hail to the thief", []),
    ],
)
def test_what_shows_the_attack_is_found_in_the_text(attack: str, text: str, shown: list[str]) -> None:
    made = ATTACKS[attack]()

    def succeeds(part: str) -> bool | None:
        return made.success(Problem("p", "", ""), part)

    assert succeeds(text) is True
    assert [text[start:end] for start, end in attack_spans(succeeds, text)] == shown
