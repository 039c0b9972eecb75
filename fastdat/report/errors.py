"""What a report raises that is the user's to mend; anything else is a bug and keeps its traceback."""


class ReportError(ValueError):
    """A report that cannot be made of what was given; the message says what was looked for and where."""
