"""The ways a person's input can be wrong, one class each.

Each message says what was wrong, where, what was expected, and how to mend it. The command line
turns any of these into a message on standard error and exit status 2.
"""


class TiewiseError(ValueError):
    """Something the caller can mend; the base of every error this package raises on purpose."""


class FilesError(TiewiseError):
    """A file to be written exists already."""


class ParseError(TiewiseError):
    """A cell's text is not a JSON list of strings and nulls."""


class LabelError(TiewiseError):
    """A winner is not exactly one of A, B, tie."""


class FoldError(TiewiseError):
    """A fold or a number of splits is out of range, or the rows cannot be split."""


class PairsError(TiewiseError):
    """A file or table cannot be read as pairs."""


class TemplateError(TiewiseError):
    """A template does not fit its tokenizer or its budget."""


class ScoresError(TiewiseError):
    """Probabilities or labels cannot be scored."""


class ConfigError(TiewiseError):
    """A configuration names something unknown, or its fields contradict one another."""


class RunError(TiewiseError):
    """A run folder is missing, damaged, or belongs to other inputs."""


class ModelError(TiewiseError):
    """A backbone, adapter or head is missing, damaged, or not the one expected."""


class DeviceError(TiewiseError):
    """The configuration needs a device this machine does not have."""


def missing_extra(what: str, error: ModuleNotFoundError) -> DeviceError:
    """Return the error that says which package `what` needs, and how to get it."""
    return DeviceError(
        f"{what} needs {error.name}, which is not installed: run pip install 'tiewise[train]' "
        "(for a GPU, with the torch build for its CUDA)."
    )


class NumericsError(TiewiseError):
    """A loss or gradient is not a finite number."""


class Interrupted(Exception):  # noqa: N818 - nothing is wrong: somebody asked for it
    """A signal ended the work after a checkpoint; ``args[0]`` is the signal's number."""
