"""Experiments: configuration, building, running, storing, drawing."""
