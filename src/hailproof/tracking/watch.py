"""Hands each round on: to the tally, to the trackers, and to the live view."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

from hailproof.parsing import printable
from hailproof.tracking.live import LiveView
from hailproof.tracking.seen import SeenRound
from hailproof.tracking.tally import Tally
from hailproof.tracking.tracker import Tracker, open_tracker

_LOGGER = logging.getLogger("hailproof.tracking")


@final
class Watch:
    """Hands each round on. A tracker that fails is left out from then on; it never stops what it watches.

    Args:
        trackers: Trackers, which the watch closes.
        view: A live view, which the watch closes.
        complain: Called with one sentence when a tracker fails; by default a warning of :mod:`logging`.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker] = (),
        view: LiveView | None = None,
        complain: Callable[[str], None] = _LOGGER.warning,
    ) -> None:
        self.tally = Tally()
        self.trackers = list(trackers)
        self.views = [view] if view is not None else []
        self._complain = complain

    def see(self, seen: SeenRound) -> None:
        """Takes a round."""
        self.tally.add(seen)
        figures = self.tally.figures() if self.trackers else {}
        for tracker in tuple(self.trackers):
            try:
                tracker.log(seen.round, figures)
            except Exception as error:  # a library of somebody else's; training goes on without it
                self.trackers.remove(tracker)
                self._say(tracker, f"tracking ends after round {seen.round - 1}", error)
                with contextlib.suppress(Exception):
                    tracker.close()
        for view in self.views:
            view.show(self.tally)

    def close(self) -> None:
        """Closes trackers and views."""
        for view in self.views:
            view.close()
        for tracker in self.trackers:
            try:
                tracker.close()
            except Exception as error:
                self._say(tracker, "its last figures may be lost", error)
        self.views, self.trackers = [], []

    def _say(self, tracker: Tracker, what: str, error: Exception) -> None:
        reason = printable(f"{type(error).__name__}: {error}", 300).rstrip(".")
        self._complain(f"The tracker {type(tracker).__name__} failed ({reason}); {what}, and everything else goes on.")


@contextlib.contextmanager
def watching(
    trackers: Sequence[str], folder: Path, view: LiveView | None, complain: Callable[[str], None]
) -> Iterator[Watch]:
    """A watch with trackers by name, which is closed at the end.

    Args:
        trackers: Their names.
        folder: The run's folder.
        view: A live view, which is opened.
        complain: Called with one sentence when a tracker fails.

    Raises:
        ConfigError: If there is no tracker of a name, or its package is missing.
    """
    watch = Watch([open_tracker(name, folder) for name in dict.fromkeys(trackers)], view, complain)
    try:
        with view if view is not None else contextlib.nullcontext():
            yield watch
    finally:
        watch.close()
