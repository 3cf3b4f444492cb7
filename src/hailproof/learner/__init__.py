"""GRPO: advantages, loss and update."""
