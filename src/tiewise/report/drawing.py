"""How figures look, and how they are written: colours, sizes, SVG that follows the page.

matplotlib is loaded by the first drawing, not by importing this module, and nothing here touches
pyplot or global state. Colours are Okabe and Ito's, told apart in every common
kind of colour vision; each has the name of a CSS variable of the report, so that one drawing is
right on a light page, on a dark one and on paper. Text stays text: it can be read aloud, searched,
and takes the page's font.

References
----------
Okabe and Ito (2008), Color Universal Design: how to make figures and presentations that are
friendly to colorblind people.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec
from xml.etree import ElementTree

from tiewise.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")

INK, MUTED, LINE, PAPER = "#1b1f24", "#66707b", "#dde2e8", "#ffffff"
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, ORANGE, SKY = "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PAPER: "--paper",
    BLUE: "--blue",
    VERMILLION: "--vermillion",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
}
"""The CSS variable behind each colour."""

WIDTH = 7.0
"""Width of a figure in inches."""

_DPI = 200
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 8.5,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # names come from data: a dollar is a dollar
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiewise",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the house style to what is drawn within the block.

    Raises
    ------
    RunError
        When matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise RunError("Figures need matplotlib: pip install 'tiewise[plot]'.") from error
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE}), warnings.catch_warnings():
        # A name in a script that the font lacks is boxes in the PNG, and itself in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Make a function draw in the house style."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return drawn


def new_figure(height: float) -> Figure:
    """Return an empty figure of a height in inches, as wide as a page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    padding = {"w_pad": 0.06, "h_pad": 0.06, "wspace": 0.04, "hspace": 0.06}
    figure.get_layout_engine().set(**padding)  # type: ignore[union-attr]
    return figure


def draw_whiskers(axes: Axes, table: Any, at: Any, *, is_horizontal: bool, **style: Any) -> None:
    """Draw points with their intervals; a point whose interval is unknown is drawn without one.

    Parameters
    ----------
    axes
        Where to draw.
    table
        ``value, low, high``, n lines.
    at
        Places along the other axis, (n,).
    is_horizontal
        Whether values lie along the horizontal axis.
    **style
        Passed on to ``Axes.errorbar``.
    """
    value = table["value"].to_numpy(float)
    ends = abs(table[["low", "high"]].to_numpy(float).T - value)
    options: dict[str, Any] = {"linestyle": "none", "elinewidth": 1.3, "markersize": 4.5}
    options |= {"marker": "o"} | style
    if is_horizontal:
        axes.errorbar(value, at, xerr=ends, **options)
    else:
        axes.errorbar(at, value, yerr=ends, **options)


def legend_above(axes: Axes, n_columns: int = 3) -> None:
    """Put the legend above the axes, where it covers nothing."""
    options = {"handletextpad": 0.4, "columnspacing": 1.2, "borderaxespad": 0.2}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, **options)


def rule(axes: Axes, which: Literal["both", "x", "y"]) -> None:
    """Draw faint lines across the axes at the ticks of one direction, or both."""
    axes.grid(visible=True, axis=which)


def to_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file: the same bytes for the same figure."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    target = io.BytesIO()
    with house_style():
        FigureCanvasSVG(figure)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", dpi=_DPI, metadata=empty)
    return target.getvalue()


def embed_svg(svg: bytes, *, name: str, alt: str) -> str:
    """Adapt the SVG file of a figure to an HTML page.

    Parameters
    ----------
    svg
        As :func:`to_svg` returns it.
    name
        Plain word put before every id, so that one page can hold many figures.
    alt
        Description of the figure for people who cannot see it.

    Returns
    -------
    str
        ``<svg …>…</svg>`` without a size, so that CSS scales it; colours are CSS variables.
    """
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by to_svg
    for element in root.iter():
        _adapt(element, name)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": alt}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Make ids the figure's own, colours the page's, and fonts the page's."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == f"{{{_XLINK}}}href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif key == "clip-path":
            element.set(key, value.replace("url(#", f"url(#{name}-"))
        elif key == "style":
            element.set(key, _page_style(value))


def _page_style(style: str) -> str:
    style = re.sub(r"font: ([^;]*?)([\d.]+)px [^;]*", _page_font, style)
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return style


def _page_font(found: re.Match[str]) -> str:
    weight = "bold" if "bold" in found[1] or "700" in found[1] else "normal"
    return f"font-size: {found[2]}px; font-weight: {weight}"
