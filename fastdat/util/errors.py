"""Errors that the user can put right. The command line prints their message alone; any other error is a bug."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting is unknown, or its value is outside its range."""


class DataError(ValueError):
    """Data is missing, damaged or not what was asked for; the message says what to do."""


class NoSuchSplitError(DataError):
    """The data set does not have this split, and need not have it."""


class ReportError(ValueError):
    """No report can be made of what was given; the message says what was looked for and where."""


class RunFolderError(OSError):
    """A run folder cannot be used."""


class LostRankError(ConnectionError):
    """Another process that trains the same run has ended."""


class NonFiniteError(ArithmeticError):
    """Training produced NaN or infinity; the message says when, where and what to try."""
