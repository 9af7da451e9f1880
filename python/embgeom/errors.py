"""The errors which embgeom raises on purpose; each message names the value and the way out."""


class EmbgeomError(Exception):
    """Base of every error that embgeom raises on purpose."""


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
