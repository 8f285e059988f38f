"""Errors of the package: a message says what is wrong, what was expected and how to correct it."""

from collections.abc import Iterable
from difflib import get_close_matches


class TiewiseError(ValueError):
    """Base of all errors that a caller can correct.

    Catch it to catch every other error of the package. The command line prints the message and ends
    with exit status 2.

    Examples
    --------
    >>> import tiewise as tw
    >>> try:
    ...     tw.open_run("no-such-run")
    ... except tw.TiewiseError as error:
    ...     print(type(error).__name__)
    RunError
    """


class FilesError(TiewiseError):
    """Raised when an output file exists already, is a folder, or cannot be written."""


class ParseError(TiewiseError):
    """Raised when the text of a cell is not a JSON list of strings and nulls."""


class LabelError(TiewiseError):
    """Raised when a winner or a label is not exactly one of A, B, tie."""


class FoldError(TiewiseError):
    """Raised when rows cannot be assigned to folds.

    A fold or a number of folds is out of range, or there are fewer prompt groups than folds.
    """


class PairsError(TiewiseError):
    """Raised when a file or a table cannot be read as pairs.

    A file or column is missing, no format fits, or a row has an invalid value; the message names
    the file, the row and the column.
    """


class TemplateError(TiewiseError):
    """Raised when a template does not fit its tokenizer or its maximum length."""


class ScoresError(TiewiseError):
    """Raised when labels or probabilities cannot be scored.

    Probabilities are outside [0, 1] or do not sum to 1, a label is not 0, 1 or 2, a column is
    unknown, or numbers of rows differ; the message names the rows.
    """


class ConfigError(TiewiseError):
    """Raised when a configuration or an argument is invalid.

    A field or a preset is unknown, a value is out of range, or two values contradict each other.
    """


class RunError(TiewiseError):
    """Raised when a run cannot be used.

    Its folder is missing or damaged, no fold is finished, or it was started with other data or
    another configuration.
    """


class ModelError(TiewiseError):
    """Raised when a backbone, an adapter or a head is missing, damaged or not the expected one."""


class DeviceError(TiewiseError):
    """Raised when this machine lacks a device or a package that is needed.

    The message names the extra to install, such as ``pip install 'tiewise[train]'``.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the most similar of some names, with a space before it.

    It is empty if none is similar. Upper and lower case are the same.

    >>> did_you_mean("frist", ["first", "second"]), did_you_mean("x", ["first"])
    (' Did you mean first?', '')
    """
    names = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold(), names, n=1)
    return f" Did you mean {names[found[0]]}?" if found else ""


def missing_extra(what: str, error: ModuleNotFoundError, extra: str = "train") -> DeviceError:
    """Return the error that names the missing package and the extra that installs it."""
    note = " (for a GPU, with the torch build for its CUDA)" if extra == "train" else ""
    return DeviceError(
        f"{what} needs {error.name}, which is not installed: run pip install 'tiewise[{extra}]'"
        f"{note}."
    )


class NumericsError(TiewiseError):
    """Raised when a loss or a gradient is not a finite number."""


class Interrupted(Exception):  # noqa: N818 - an interruption is not an error
    """Raised when a signal, such as Ctrl-C, ends a fit or a prediction after a checkpoint.

    Continue with ``resume=True``. ``args[0]`` is the number of the signal.
    """
