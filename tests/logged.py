"""What a tracker is given by a run that was interrupted, for a test in a process that loads nothing else."""

from pathlib import Path

from hailproof.tracking import open_tracker
from hailproof.tracking.tally import safe

FIGURES = {"hailproof/reward": 0.5, f"hailproof/kept/{safe('[red]a/b')}": 0.25}


def logged_twice(name: str, folder: Path) -> None:
    """Two rounds and a half-finished third; then a program that goes on from the second, as a resumed run does."""
    for first, last in ((1, 3), (3, 4)):
        tracker = open_tracker(name, folder)
        assert first > 1 or not folder.exists()
        for step in range(first, last + 1):
            tracker.log(step, {each: value * step + (first > 1) for each, value in FIGURES.items()})
        tracker.close()


EXPECTED = [0.5, 1.0, 2.5, 3.0]
"""The reward of each round that is to be found."""
