"""How much one pass of a model takes; without torch."""

TOKEN_BUDGET = 4096
"""Padded tokens per pass. It bounds the memory of the logits; on a CPU, passes four times larger run at half the speed,
because their buffers no longer fit what the allocator keeps at hand. Accelerators want more."""
