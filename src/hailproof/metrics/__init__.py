"""What a round or a run amounts to: pure functions of records."""
