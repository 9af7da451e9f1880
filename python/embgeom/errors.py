"""The errors which embgeom raises on purpose; each message names the value and how to fix it."""

import re


class EmbgeomError(Exception):
    """Base of every error that embgeom raises on purpose.

    Attributes
    ----------
    command : str
        What the command line says instead of the message, where its options have other names.
    """

    def __init__(self, message: object = "", *, command: str | None = None) -> None:
        # A value that is named, such as a tensor or a module, may be written in many lines.
        super().__init__(re.sub(r"\s*\n\s*", " ", str(message)))
        self.command = str(self) if command is None else command


class InputError(EmbgeomError, ValueError):
    """An argument or an array is not what the function takes (shape, range, NaN, ...)."""


class LoadError(EmbgeomError):
    """A model, tensor or tokenizer cannot be read, found or matched to its files."""


class OutputError(EmbgeomError):
    """A result cannot be written where it was asked for."""


class EmbgeomWarning(UserWarning):
    """Something was done that the caller may not expect; the message says what, and how to avoid it."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception of another library says, or else its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
