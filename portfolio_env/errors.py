"""The errors raised for bad input; each message names the value, the bound and the mend."""


class PortfolioError(ValueError):
    """Base class of every error this package raises for bad input."""


class ArgumentError(PortfolioError):
    """An argument (a keyword, an action, an option) lies outside what the function accepts."""


class DataError(PortfolioError):
    """Market data that cannot be used as they are; the message names file, row and mend."""
