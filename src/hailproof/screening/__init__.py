"""Screens completions on disk: files of other systems, detected by their form, read as a stream."""
