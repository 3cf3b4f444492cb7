"""Settings of a run that takes a second, to lay a test's own over; most of what TEXT forges has at most 48 tokens."""

TINY = {
    "threads": 1,
    "swarm": {"prompts": 2, "group_size": 4, "device": "cpu"},
    "sampling": {"max_new_tokens": 48},
    "task": {"options": {"size": 40, "test_size": 8}},
    "evaluation": {"problems": 4},
}
