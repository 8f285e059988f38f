"""Flags of the command line: shared types, fields of the configuration, and the parser.

Every field of :class:`tiewise.config.RunConfig` is a flag of ``tiewise fit``. ``--help`` shows the
common ones and ``--help-all`` shows all; both accept all.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import logging
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from tiewise.config import PRESETS, RunConfig, config_from_dict
from tiewise.console import show
from tiewise.errors import ConfigError, did_you_mean

Command = Callable[..., None]
_SWAP = {"--swap": ["--swap", "True"], "--no-swap": ["--swap", "False"]}
"""Spellings of a flag of predict with three values: yes, no, as the run was configured."""
_LEVELS = {
    "--quiet": logging.WARNING, "-q": logging.WARNING, "--verbose": logging.DEBUG,
    "-v": logging.DEBUG,
}  # fmt: skip
"""Flags of every command, and the lowest level of the messages that are shown."""
_COMPLETION = "--tyro-print-completion"
_SHELLS = ("bash", "zsh", "tcsh")
_FRAME = "│╰─╯ "


def _describe_default(label: str) -> str:
    """Return what the help says about a default; nothing where none is meant."""
    if "MISSING" in label.upper():
        return "(required)"
    return f"(default: {label})" if label not in {"None", "False", ""} else ""


_arg = functools.partial(tyro.conf.arg, help_behavior_hint=_describe_default)
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, _arg()]
"""A flag without a value, and without a ``--no-`` form."""
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, _arg(help="Print one JSON object.")]
Artifacts = Annotated[
    Path | None,
    _arg(
        metavar="DIR", help="Folder of runs and caches (default: TIEWISE_ARTIFACTS, or artifacts)."
    ),
]
Device = Annotated[
    Literal["cpu", "cuda"] | None,
    _arg(metavar="{cpu,cuda}", help="Device to compute on; by default the run's --device."),
]
DataFormat = Annotated[
    str | None,
    _arg(metavar="NAME", help="Name of the format; detected from the columns by default."),
]
Columns = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    _arg(
        metavar="OURS=THEIRS",
        help="Our names of columns, as in prompt=question,response_a=answer_1; and values of the "
        "winner that are not words, as in a=0,b=1,tie=2.",
    ),
]
Files = Annotated[tuple[str, ...], _arg(metavar="FILE [FILE ...]")]
MovedFiles = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE")]
"""Files of commands whose runs are named without a flag; each --data names one."""
DataFiles = Annotated[tuple[str, ...], tyro.conf.Positional, _arg(metavar="FILE [FILE ...]")]
Predictions = Annotated[
    Path | None,
    _arg(
        metavar="FILE",
        help="File with id, prob_a, prob_b, prob_tie, or a Kaggle submission, or id and winner.",
    ),
]
Output = Annotated[Path, _arg(metavar="FILE", aliases=("--output",))]
Target = Annotated[str, _arg(metavar="FILE|FOLDER", aliases=("--output",))]
OptionalOutput = Annotated[Path | None, _arg(metavar="FILE", aliases=("--output",))]
Folder = Annotated[Path, _arg(metavar="DIR", aliases=("--output",))]
OptionalFolder = Annotated[Path | None, _arg(metavar="DIR")]
Preset = Annotated[str, _arg(metavar="PRESET")]
Folds = Annotated[Literal["all"] | None, _arg(metavar="all")]
Backbone = Annotated[str | None, _arg(metavar="MODEL")]
TextFile = Annotated[Path, _arg(metavar="FILE")]
TextFiles = Annotated[tuple[Path, ...], _arg(metavar="FILE FILE ...")]
Host = Annotated[str, _arg(metavar="ADDRESS")]
Repository = Annotated[str | None, _arg(metavar="OWNER/NAME")]
Swap = Annotated[bool | None, _arg(metavar="", aliases=("--no-swap",))]
Count = Annotated[int | None, _arg(metavar="INT")]
Cluster = Annotated[
    str | None,
    _arg(
        metavar="auto|local|HOST:PORT",
        help="Compute on a Ray cluster: the one of this machine (auto), this machine alone (local) "
        "or the one at an address.",
    ),
]
WorkerGpus = Annotated[float | None, _arg(metavar="GPUS")]
Run = Annotated[str | None, _arg(metavar="RUN")]
RequiredRun = Annotated[str, _arg(metavar="RUN")]
RunName = Annotated[str, tyro.conf.Positional, _arg(metavar="RUN")]
RunNames = Annotated[tuple[str, ...], tyro.conf.Positional, _arg(metavar="RUN [RUN ...]")]
RunsAction = Annotated[Literal["list", "show", "rm"], tyro.conf.Positional]
RunNamesOrNone = Annotated[tuple[str, ...], tyro.conf.Positional, _arg(metavar="[RUN ...]")]
AnyRunName = Annotated[
    str | None, tyro.conf.Positional, _arg(metavar="[RUN]", help="Name or folder of a run.")
]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the data are read; what is not given is found from the columns."""

    data_format: DataFormat = None
    columns: Columns = ()


@dataclasses.dataclass(frozen=True)
class Judged(Reading):
    """Predictions of any judge, and how they and their data are read."""

    data: MovedFiles = ()
    """Labelled pairs that --predictions are for, or the new place of the run's data files."""
    predictions: Predictions = None
    normalize: Switch = False
    """Divide each row of --predictions by its sum, for probabilities that were rounded."""
    allow_missing: Switch = False
    """Leave out pairs without a prediction, and count them."""
    on_error: Literal["raise", "skip"] = "raise"
    """Refuse --data with an invalid row, or skip such rows and count them."""


@dataclasses.dataclass(frozen=True)
class Clustered:
    """A Ray cluster that computes, and the workers to start there."""

    ray: Cluster = None
    workers: Count = None
    """Workers on the cluster; by default as many as it has free CPUs or GPUs."""
    worker_gpus: WorkerGpus = None
    """GPUs of each worker, such as 0.5; by default 1 with the device cuda, otherwise 0."""


ClusterFlags = Annotated[Clustered, tyro.conf.OmitArgPrefixes]
ReadingFlags = Annotated[Reading, tyro.conf.OmitArgPrefixes]
JudgedFlags = Annotated[Judged, tyro.conf.OmitArgPrefixes]

COMMON_FIELDS = frozenset(
    [
        "data",
        "columns",
        "limit",
        "backbone",
        "max_length",
        "n_epochs",
        "batch_size",
        "learning_rate",
        "device",
    ]
)
"""Fields of the configuration that ``tiewise fit --help`` shows."""
_ALIASES = {"backbone": ("--model",), "n_epochs": ("--epochs",), "learning_rate": ("--lr",)}
_APPENDED = {"columns": Columns}
_METAVARS = {"data": "FILE [FILE ...]", "extra_data": "FILE [FILE ...]", "backbone": "MODEL"}


def sections_of(config: RunConfig, *, is_short: bool) -> dict[str, Any]:
    """Return the sections with types for the parser; `is_short` hides the rare fields."""
    return {
        part.name: _as_flags(getattr(config, part.name), is_short=is_short)
        for part in dataclasses.fields(config)
    }


def config_of(**sections: Any) -> RunConfig:
    """Return the checked configuration that consists of some sections."""
    return config_from_dict({name: dataclasses.asdict(part) for name, part in sections.items()})


def _as_flags(section: Any, *, is_short: bool) -> Any:
    """Return a section as a subclass of its type, whose fields say how their flags are shown."""
    kind = type(section)
    hints, helps = get_type_hints(kind, include_extras=True), _helps_of(kind)
    shown = {
        name: Annotated[hint, tyro.conf.Suppress]
        if is_short and name not in COMMON_FIELDS
        else _APPENDED.get(name) or Annotated[hint, _describe_field(name, hint, helps[name])]
        for name, hint in hints.items()
    }
    members = {"__annotations__": shown, "__doc__": kind.__doc__, "__module__": kind.__module__}
    defaults = dataclasses.asdict(section)
    made: Any = dataclasses.dataclass(frozen=True)(type(kind.__name__, (kind,), members | defaults))
    return made(**defaults)


def _describe_field(name: str, hint: Any, text: str) -> Any:
    return _arg(metavar=_metavar(name, hint), aliases=_ALIASES.get(name), help=text)


def _helps_of(kind: type) -> dict[str, str]:
    """Return the text under each field of a class, on one line: tyro keeps line breaks."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(getattr(tree, "body", ()))
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }  # fmt: skip


def _metavar(name: str, hint: Any) -> str | None:
    """Return what the help shows for a value; None leaves it to the parser."""
    if name in _METAVARS:
        return _METAVARS[name]
    if get_origin(hint) not in {Union, types.UnionType}:
        return None
    [kind] = [part for part in get_args(hint) if part is not type(None)]
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return "TEXT" if kind is str else kind.__name__.upper()


def expand_words(words: Sequence[str]) -> list[str]:
    """Return a command line in the words that the parser knows."""
    words = list(words) or ["--help"]
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if set(_SWAP) <= set(words):
        raise ConfigError("--swap and --no-swap exclude each other; give one of them.")
    if words[:1] == ["fit"]:
        _check_folds(words)
    if words[:1] == ["predict"]:
        words = [part for word in words for part in _SWAP.get(word, [word])]
    return words


def _check_folds(words: Sequence[str]) -> None:
    for word, following in itertools.pairwise([*words, ""]):
        flag, _, value = word.partition("=")
        given = value or following
        if flag == "--folds" and given != "all":
            one = f" For one fold: --fold {given}." if given.isdigit() else ""
            raise ConfigError(f"--folds is {given!r}; expected all.{one}")


def take_level(words: Sequence[str]) -> tuple[list[str], int]:
    """Remove the flags that set how much is said; return the other words and the lowest level."""
    levels = [_LEVELS[word] for word in words if word in _LEVELS]
    return [word for word in words if word not in _LEVELS], min(levels, default=logging.INFO)


def find_preset(words: Sequence[str]) -> str | None:
    """Find the preset before the other flags are parsed, since it sets their defaults."""
    preset = None
    for word, following in (
        zip(words, [*words[1:], ""], strict=True) if words[:1] == ["fit"] else ()
    ):
        if word == "--preset" and following:
            preset = following
        elif word.startswith("--preset="):
            preset = word.removeprefix("--preset=")
    return preset


def parse_words(
    commands: Mapping[str, Command], words: Sequence[str], *, description: str
) -> Callable[[], None]:
    """Parse a command line with tyro; return the command that it names, ready to run.

    ConfigError when the words do not fit, with tyro's message and suggestions.
    """
    _check_command(words, list(commands))
    for command in commands.values():
        command.__doc__ = _join_lines(command.__doc__ or "")
    typed = commands.get(words[0]) if words else None
    listed = {name: _summarised(command) for name, command in commands.items()}
    shown: dict[str, Any] = {words[0]: _deferred(typed)} if typed else listed
    words = ["--help" if word == "--help-all" else word for word in words]
    if typed and not {"-h", "--help"}.isdisjoint(words):
        words = [words[0], "--help"]  # after a parsed word tyro leaves its argument out
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            call: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
                shown, args=words, prog="tiewise", description=description
            )
    except SystemExit as stop:
        if words[:2] == [_COMPLETION, "bash"]:
            show(_complete_names(commands))
        if not stop.code:
            raise
        message = _without_frame(printed.getvalue())
        if typed:
            message = message.replace("run tiewise --help", f"run tiewise {words[0]} --help")
        raise ConfigError(message) from None
    return call


def _join_lines(text: str) -> str:
    """Return a docstring with the text about each argument on one line: tyro keeps line breaks."""
    return re.sub(r"\n {8,}", " ", inspect.cleandoc(text))


def _complete_names(commands: Mapping[str, Command]) -> str:
    """Return the part of the completion script for bash that completes presets and runs."""
    kinds = (RunName, RunNames, RunNamesOrNone, AnyRunName)
    of_runs = [
        name
        for name, command in commands.items()
        if any(hint in kinds for hint in get_type_hints(command, include_extras=True).values())
    ]
    script = (resources.files("tiewise") / "completion.bash").read_text("utf-8")
    lists = {"@PRESETS@": r"\n".join(PRESETS), "@COMMANDS@": r"\n".join(commands)}
    for place, names in (lists | {"@OF_RUNS@": " ".join(of_runs)}).items():
        script = script.replace(place, names)
    return script


def _check_command(words: Sequence[str], names: Sequence[str]) -> None:
    if words[:1] == [_COMPLETION] and list(words[1:]) not in [[name] for name in _SHELLS]:
        raise ConfigError(f"{_COMPLETION} needs one of {', '.join(_SHELLS)}.")
    if words and not words[0].startswith("-") and words[0] not in names:
        hint = did_you_mean(words[0], names)
        raise ConfigError(f"{words[0]} is not a command.{hint}\nCommands: {', '.join(names)}")


def _deferred(command: Command) -> Callable[..., Callable[[], None]]:
    """Return a function with the command's flags that returns the command, ready to run."""

    @functools.wraps(command)
    def bind(*values: Any, **flags: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **flags)

    return bind


def _summarised(command: Command) -> Command:
    """Return a placeholder whose help is the first paragraph, for the list of commands."""

    @functools.wraps(command)
    def listed() -> None:
        """Do nothing: only the command that was typed is parsed in full."""

    listed.__doc__ = inspect.cleandoc(command.__doc__ or "").split("\n\n")[0]
    return listed


def _without_frame(text: str) -> str:
    """Return the lines of a message that tyro printed in a box, without the box and its title."""
    lines = [line.strip(_FRAME) for line in text.splitlines() if not line.startswith("╭")]
    return "\n  ".join(line for line in lines if line)
