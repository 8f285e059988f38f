"""Errors of the package: a message says what is wrong, what was expected and how to correct it."""


class TiewiseError(ValueError):
    """Base of all errors that a caller can correct."""


class FilesError(TiewiseError):
    """An output file exists already, or is a folder."""


class ParseError(TiewiseError):
    """The text of a cell is not a JSON list of strings and nulls."""


class LabelError(TiewiseError):
    """A winner is not exactly one of A, B, tie."""


class FoldError(TiewiseError):
    """A fold or a number of splits is out of range, or the rows cannot be split."""


class PairsError(TiewiseError):
    """A file or table cannot be read as pairs."""


class TemplateError(TiewiseError):
    """A template does not fit its tokenizer or its maximum length."""


class ScoresError(TiewiseError):
    """Probabilities or labels cannot be scored."""


class ConfigError(TiewiseError):
    """A configuration field is unknown, out of range, or contradicts another field."""


class RunError(TiewiseError):
    """A run folder is missing or damaged, or belongs to other inputs."""


class ModelError(TiewiseError):
    """A backbone, adapter or head is missing or damaged, or is not the expected one."""


class DeviceError(TiewiseError):
    """The machine lacks a device or a package that the configuration needs."""


def missing_extra(what: str, error: ModuleNotFoundError) -> DeviceError:
    """Return the error that names the missing package and how to install it."""
    return DeviceError(
        f"{what} needs {error.name}, which is not installed: run pip install 'tiewise[train]' "
        "(for a GPU, with the torch build for its CUDA)."
    )


class NumericsError(TiewiseError):
    """A loss or gradient is not a finite number."""


class Interrupted(Exception):  # noqa: N818 - an interruption is not an error
    """A signal ended the work after a checkpoint; ``args[0]`` is the number of the signal."""
