"""What tests share: small markets and runs, checks, servers on loopback, slow references."""

from hypothesis import settings


def examples(count: int) -> settings:
    """So many examples in the thorough profile; in the quick one a share of them, at least five."""
    share = count * settings.default.max_examples // 100
    return settings(max_examples=min(count, max(5, share)))
