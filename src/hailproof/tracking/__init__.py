"""Trackers and the live view: what each sender sends, keeps and is caught for, and whether the node learns.

``tracker.py`` has the interface, ``seen.py`` what is known of a round, ``tally.py`` the figures and their names.
"""

from hailproof.tracking.tracker import TRACKERS, Tracker, open_tracker

__all__ = ["TRACKERS", "Tracker", "open_tracker"]
