"""How submissions move between nodes."""

from hailproof.exchange.local import LocalExchange

__all__ = ["LocalExchange"]
