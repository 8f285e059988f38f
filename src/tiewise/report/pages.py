"""Templates and how values get into them: autoescape always on, unknown names an error.

Templates are the package's own; data only ever fill them in. In HTML every value is escaped by
Jinja; in a model card every name from data goes through the filter ``markdown``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tiewise.errors import RunError
from tiewise.report.excerpts import escape_markdown, label_text

if TYPE_CHECKING:
    import jinja2

_INTERVAL = re.compile(r"([-−+]?[\d.]+%?) (\[(?:[-−+\d.%, ]|nan|unknown)*\])")


def make_environment() -> jinja2.Environment:
    """Return the environment that every page is rendered in.

    Raises
    ------
    RunError
        When jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise RunError("Reports and cards need jinja2: pip install 'tiewise[plot]'.") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tiewise.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # The text is inert for Markdown by now; a second escaping would be seen.
    environment.filters["markdown"] = lambda text: as_markup(_to_markdown(str(text)))
    environment.filters["split_interval"] = split_interval
    return environment


def as_markup(text: str) -> str:
    """Mark a text of our own making, or one made inert, as not to be escaped again."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - the callers answer for what they pass


def split_interval(cell: str) -> tuple[str, str]:
    """Split a number from its interval; anything else is left whole.

    Examples
    --------
    >>> split_interval("0.500 [0.400, 0.600]"), split_interval("A [1]")
    (('0.500', '[0.400, 0.600]'), ('A [1]', ''))
    """
    found = _INTERVAL.fullmatch(cell)
    return (found[1], found[2]) if found else (cell, "")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as one level of dotted names and short texts.

    Examples
    --------
    >>> flatten({"a": {"b": 1}, "c": None, "d": ["x", "y"]})
    {'a.b': '1', 'c': 'none', 'd': 'x, y'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        else:
            flat[label_text(key)] = _shown(value)
    return flat


def _to_markdown(text: str) -> str:
    """Escape a text; a number with its interval is ours, and needs no escaping."""
    return text if _INTERVAL.fullmatch(text) else escape_markdown(text)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value)) or None
    return "none" if value is None else label_text(value, 300)
