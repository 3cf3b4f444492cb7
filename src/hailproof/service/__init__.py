"""Real swarms: the long-running node, the relay, status and metrics."""
