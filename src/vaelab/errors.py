"""What the commands turn into one sentence and an exit code."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user asked for: its text is all that the user sees."""


class Stopped(BaseException):
    """Ends the command with a message: a mistake, a signal or a broken loss. (No Exception: nothing may swallow it.)

    Attributes:
        message: what to tell the user.
        exit_code: of the process: 128 + the signal's number, or 1.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message, self.exit_code = message, exit_code
