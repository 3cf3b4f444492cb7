"""Tests somebody's reward function with forged, wrong and damaged completions, in a process with limits."""
