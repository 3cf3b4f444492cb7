"""Packages that come with an extra of hailproof."""

import importlib

from hailproof.errors import ModelError


def require(package: str, what: str) -> None:
    """Raises a ``ModelError`` that says what to install if a package is missing.

    Args:
        package: The package; the extra has its name.
        what: What needs it, to begin the sentence with.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"{what} needs the package {package}; install it with pip install 'hailproof[{package}]'."
        ) from error
