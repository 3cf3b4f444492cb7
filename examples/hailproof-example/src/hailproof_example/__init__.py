"""An attack and a defense that join hailproof by entry point; see ``pyproject.toml``."""
