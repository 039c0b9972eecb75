"""What training raises that is the user's to mend; anything else is a bug and keeps its traceback."""

from fastdat.settings import ConfigError as ConfigError


class RunFolderError(OSError):
    """A run folder that cannot be used."""


class NonFiniteError(ArithmeticError):
    """Training produced NaN or infinity; the message says when, where and what to try."""
