"""Find the format of a source from its columns, rename columns, and suggest how to."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from tiewise.data.formats.cells import Record, has_brackets, is_list, is_missing
from tiewise.data.formats.context import find_prompt
from tiewise.data.formats.opening import ParsedRecord
from tiewise.data.formats.records import FORMATS, LABEL_COLUMNS, Format
from tiewise.data.formats.sources import Source, open_source
from tiewise.data.labels import Winner
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.errors import PairsError

_log = logging.getLogger(__name__)
WINNER_NAMES = {"a": Winner.A, "b": Winner.B, "tie": Winner.TIE}
"""Names of the winners, whose values in a source are given as names of columns are."""
_split_assignments = re.compile(r",\s*(?=\w+\s*=)").split
_find_parts = re.compile(r"[a-z]+|\d+").findall
_SYNONYMS = {
    "prompt": {"question", "instruction", "query", "input", "user", "request"},
    "winner": {
        *("verdict", "preference", "preferred", "choice", "better", "best", "vote", "outcome"),
        *("judgment", "judgement", "judge", "decision"),
    },
}
_RESPONSE_PARTS = {
    *("response", "answer", "output", "completion", "reply", "text", "candidate", "generation"),
    *("option", "message"),
}
_SIDE_PARTS = {"response_a": {"a", "1", "one", "first", "left"},
               "response_b": {"b", "2", "two", "second", "right"}}  # fmt: skip


def find_format(name: str, columns: Sequence[str], records: Iterable[Record]) -> str:
    """Return the format that has these columns; PairsError, which has the source's `name`, if none.

    Between lists of turns and plain text the first records decide.
    """
    fitting = [
        key
        for key, known in FORMATS.items()
        if set(known.needs) <= set(columns) and set(known.excludes).isdisjoint(columns)
    ]
    if not fitting:
        raise PairsError(f"{name} {_describe_nearest(columns)}")
    return "wsdm" if fitting[0] == "kaggle" and _holds_plain_text(records) else fitting[0]


def find_unread(name: str, columns: Sequence[str]) -> list[str]:
    """Return the columns of a source that the format with this name does not read."""
    known = FORMATS[name]
    reads = {*known.reads, *(find_prompt(columns) if known.is_choice else ())}
    if known.winner in columns:
        reads.difference_update(*LABEL_COLUMNS)
    return [column for column in columns if column not in reads]


def parse_assignments(given: Mapping[str, Any] | Sequence[str]) -> list[tuple[str, Any]]:
    """Return names and values of a dictionary, or of words ``NAME=VALUE`` with commas between them.

    A list is several values. Other words are a PairsError.

    >>> parse_assignments(["prompt=question, winner=best"])
    [('prompt', 'question'), ('winner', 'best')]
    """
    if isinstance(given, Mapping):
        listed = [(key, value if is_list(value) else [value]) for key, value in given.items()]
        return [(str(key), value) for key, values in listed for value in values]
    words = [given] if isinstance(given, str) else given or ()
    if not all(isinstance(word, str) for word in words):
        raise PairsError(f"columns is {given!r:.80}; expected a dictionary or words OURS=THEIRS")
    items = [*chain.from_iterable(_split_assignments(word) for word in words)]
    for item in items:
        if "=" not in item:
            raise PairsError(f"columns is {item!r}; expected OURS=THEIRS, as in prompt=question")
    pairs = (item.split("=", 1) for item in items)
    return [(key.strip(), value.strip()) for key, value in pairs]


def rename_columns(
    source: Source, columns: Mapping[str, Any] | Sequence[str]
) -> tuple[Source, list[str]]:
    """Return a source in which columns have our names, and the columns that these replace.

    `columns` gives for a name of ours that of the source, as `parse_assignments` reads it. It may
    give values of winners too, which are for `choose_winner_column`.
    """
    names: dict[str, str] = {}
    for ours, theirs in parse_assignments(columns):
        if ours in WINNER_NAMES:
            continue
        if ours in names:
            raise PairsError(f"columns names {ours} twice; expected one column for it")
        names[ours] = theirs
        _check_names(source, ours, theirs)
    if not names:
        return source, []
    replaced = [name for name in names if name in source.columns and name not in names.values()]
    return rename_source(source, names), replaced


def find_own_columns(paths: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of `columns`, those of a run's data, that fit other files.

    They fit if the files have all columns that are named for texts, and not our names of these; a
    winner may be missing.
    """
    given = dict(parse_assignments(columns))
    texts = {ours: theirs for ours, theirs in given.items() if ours in TEXT_COLUMNS}
    is_local = all(Path(path).exists() for path in paths)
    found = [{*open_source(path).columns} for path in (paths if texts and is_local else ())]
    if not found or any({*texts} <= names or not {*texts.values()} <= names for names in found):
        return ()
    shared = set.intersection(*found)
    has_winner_too = given.get("winner", "winner") in shared
    kept = [
        word
        for word in chain.from_iterable(_split_assignments(word) for word in columns)
        if word.partition("=")[2].strip() in shared
        or (has_winner_too and word.partition("=")[0].strip() in WINNER_NAMES)
    ]
    _log.info("Columns are named as in the run: --columns %s", ",".join(kept))
    return tuple(kept)


def rename_source(source: Source, names: Mapping[str, str]) -> Source:
    """Return a source in which the columns of the values have the names of the keys."""
    dropped = {*names, *names.values()}
    kept = [name for name in source.columns if name not in dropped]

    def rename(entry: ParsedRecord) -> ParsedRecord:
        values = {name: entry.values[name] for name in kept if name in entry.values}
        values |= {o: entry.values[t] for o, t in names.items() if t in entry.values}
        return entry._replace(values=values)

    return Source(source.name, (*kept, *names), map(rename, source.records))


def suggest_columns(missing: Iterable[str], columns: Iterable[str]) -> dict[str, str]:
    """Return for each missing column of ours the column that may hold it, where one is similar.

    >>> suggest_columns(["prompt", "response_a"], ["question", "answer_1", "Answer 2"])
    {'prompt': 'question', 'response_a': 'answer_1'}
    """
    free, found = list(columns), {}
    for name in missing:
        plain = {"_".join(_find_parts(column.lower())): column for column in reversed(free)}
        close = [key for key in plain if _is_synonym(name, key)]
        close += get_close_matches(name, plain, n=1, cutoff=0.7)
        if close:
            found[name] = plain[close[0]]
            free.remove(found[name])
    return found


def show_columns_flag(names: Mapping[str, str]) -> str:
    """Return the flag that gives columns our names, as it is typed in a shell."""
    return "--columns " + shlex.quote(
        ",".join(f"{ours}={theirs}" for ours, theirs in names.items())
    )


def _check_names(source: Source, ours: str, theirs: str) -> None:
    known = {name for each in FORMATS.values() for name in (*each.needs, *each.reads)}
    known |= {"label", "question", "instruction", "input"}
    for name, among, problem in (
        (ours, sorted(known), f"{ours} is no column that a format reads"),
        (theirs, source.columns, f"there is no column {theirs}"),
    ):
        if name not in among:
            close = get_close_matches(name, among, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            found = f" Found {', '.join(source.columns)}" if among is source.columns else ""
            raise PairsError(f"{source.name}: {problem}{hint}{found}")


def _describe_nearest(columns: Sequence[str]) -> str:
    """Describe the format that lacks fewest columns, and what they may be called in the source."""

    def distance(known: Format) -> tuple[int, int]:
        missing = [name for name in known.needs if name not in columns]
        n_unknown = len(missing) - len(_suggest(missing, columns, known))
        return n_unknown, len(missing) - len(known.needs)

    key = min((key for key in FORMATS if key != "pairs"), key=lambda key: distance(FORMATS[key]))
    known, needs = FORMATS[key], FORMATS[key].needs
    missing = [name for name in needs if name not in columns]
    found = _suggest(missing, columns, known)
    if 2 * (len(missing) - len(found)) >= len(needs):
        listed = "\n".join(f"  {key}: {', '.join(known.needs)}" for key, known in FORMATS.items())
        return (
            f"cannot be read: no known format has the columns {', '.join(columns)}. "
            f"Name yours with --columns OURS=THEIRS; each format needs at least:\n{listed}"
        )
    if found and not has_winner(known, columns):
        free = [name for name in columns if name not in found.values()]
        found |= _suggest(["winner"], free, known)
    are = "is" if len(missing) == 1 else "are"
    hint = f"\nDid you mean {show_columns_flag(found)}?" if found else ""
    return (
        f"looks like {key}; {', '.join(missing)} {are} missing. "
        f"Its columns are {', '.join(columns)}.{hint}"
    )


def has_winner(known: Format, columns: Sequence[str]) -> bool:
    """Return whether a source with these columns of a format names the winner."""
    groups = [*LABEL_COLUMNS, *([(known.winner,)] if known.winner else [])]
    return known.is_choice or any(set(group) <= set(columns) for group in groups)


def _suggest(missing: Sequence[str], columns: Sequence[str], known: Format) -> dict[str, str]:
    """Suggest columns that the format does not read under their own names."""
    return suggest_columns(missing, [name for name in columns if name not in known.reads])


def _is_synonym(ours: str, theirs: str) -> bool:
    """Return whether a name in lower case, its parts joined by `_`, means a column of ours."""
    parts = set(theirs.split("_"))
    if theirs == ours:
        return True
    if ours in _SIDE_PARTS:
        return bool(parts & _RESPONSE_PARTS) and bool(parts & _SIDE_PARTS[ours])
    return not parts.isdisjoint(_SYNONYMS.get(ours, ())) and not parts & _SIDE_PARTS["response_b"]


def _holds_plain_text(records: Iterable[Record]) -> bool:
    """Return whether fewer than half of the texts are lists or look like malformed ones."""
    cells = [record.get(name) for record in records for name in TEXT_COLUMNS]
    known = [cell for cell in cells if not is_missing(cell)]
    return 2 * sum(map(has_brackets, known)) < len(known)
