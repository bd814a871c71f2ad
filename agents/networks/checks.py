"""Checks of the options of networks."""

from portfolio_env.errors import ArgumentError


def check_sizes(**sizes: int) -> None:
    """Raise an ArgumentError unless each size is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ArgumentError(f"{name} is {size}: give at least 1")


def check_share(name: str, share: float) -> None:
    """Raise an ArgumentError unless `share` is in [0, 1)."""
    if not 0 <= share < 1:
        raise ArgumentError(f"{name} is {share}: give a share in [0, 1)")


def check_heads(width: int, heads: int) -> None:
    """Raise an ArgumentError unless `heads` divides `width`."""
    check_sizes(width=width, heads=heads)
    if width % heads:
        raise ArgumentError(f"{heads} heads do not divide {width}: give a divisor of {width}")
