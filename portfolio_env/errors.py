"""The errors this package raises; each message names the value, the bound and the mend."""


class PortfolioError(ValueError):
    """Base class of every error this package raises on purpose."""


class ArgumentError(PortfolioError):
    """An argument (a keyword, an action, an option) lies outside what the function accepts."""


class DataError(PortfolioError):
    """Market data that cannot be used as they are; the message names file, row and mend."""


class ConservationError(PortfolioError):
    """A trade lost or made money: a fault of this package or its compiler, never of the input."""
