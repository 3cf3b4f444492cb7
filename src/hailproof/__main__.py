"""``python -m hailproof`` is the command ``hailproof``."""

import sys

from hailproof.cli import main

if __name__ == "__main__":
    sys.exit(main())
