"""The bench: plays every attack against every defense, over seeds, and writes a file for each cell and a page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hailproof.campaigns.cells import read_cells, write_cell
from hailproof.campaigns.matrix import Cell, load_matrix
from hailproof.campaigns.sweep import Engine, Job, sweep
from hailproof.reports.leaderboard import write_leaderboard
from hailproof.reports.table import table_of
from hailproof.runs.files import make_folder, replacing


def bench(
    cells: Sequence[Cell], out: Path, engine: Engine | None, say: Callable[[str], None], seconds: float | None = None
) -> Path:
    """Plays the runs of some cells, writes the file of each as its runs finish, then page and table of all.

    Args:
        cells: What to play; runs that several cells need are played once.
        out: The folder for the files and the page.
        engine: Where runs are played; ``None`` to play nothing and take the seeds whose runs are finished.
        say: Prints one line of progress.
        seconds: What one run takes, for the first estimate.

    Returns:
        The page: every cell that ``out`` holds, those of earlier calls as well.

    Raises:
        HailproofError: If a file in ``out`` is damaged, or runs failed.
    """
    make_folder(out)
    read_cells(out)  # a damaged one is named before anything is played
    for cell in cells:
        write_cell(cell, out / "cells")
    try:
        if engine is not None:
            _play(cells, out, engine, say, seconds)
    finally:  # a run that fails takes no page from the others
        page = _write_page(out)
    return page


def _play(
    cells: Sequence[Cell], out: Path, engine: Engine, say: Callable[[str], None], seconds: float | None
) -> None:
    """Plays the runs of some cells, and writes each cell again as one of its runs finishes."""
    written = {job.folder for cell in cells for job in cell.runs if job.summary is not None}

    def finished(job: Job) -> None:
        for cell in cells:
            if job.folder not in written and any(job.folder == each.folder for each in cell.runs):
                write_cell(cell, out / "cells")

    sweep([job for cell in cells for job in cell.runs], engine, say, seconds, finished)


def _write_page(out: Path) -> Path:
    found = read_cells(out)
    with replacing(out / "leaderboard.md") as temporary:
        temporary.write_text(table_of(found), encoding="utf-8")
    return write_leaderboard(found, out / "leaderboard.html", list(load_matrix().defenses))
