"""What the data readers and the downloader raise."""


class DataError(ValueError):
    """Data that is missing, damaged or not what was asked for; the message says what to do."""


class NoSuchSplitError(DataError):
    """A split that a set need not have, and has not."""
