"""Many runs at once: sweeps, the bench of attacks against defenses, and its cells."""
