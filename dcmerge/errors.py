"""The errors that a user can cause, kept apart from the bugs that only a developer can."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one sentence for the user, saying what was expected and what came.

    The command line prints it and exits with 2; the app shows it in a box. It never carries a traceback.
    """


class IncompatibleSet(InputError):
    """A base and its experts cannot be merged; ``report`` holds every reason, the message lists them all."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class Cancelled(Exception):
    """The user stopped a long computation; nothing was written."""


class PickledObject(InputError):
    """A file holds a pickled object, which would run code when opened: it must be converted first."""
