"""Write the reference of the Python functions and classes: one page for each public name."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sphinx.util.typing import stringify_annotation

import tiewise

HEADINGS = {
    "api": "Fitting and runs",
    "runs": "Fitting and runs",
    "judges": "Judging",
    "cluster": "Judging",
    "features": "Judging",
    "data.parse": "Reading and writing",
    "data.formats": "Reading and writing",
    "data": "Data",
    "evaluation": "Scores",
    "report": "Figures and reports",
    "": "Figures and reports",
    "errors": "Errors",
}
"""Heading of the names that a module, or the modules of a folder, define; in the page's order."""
RESULTS = (
    "Classes that functions above return. They are not made by hand, and have no public name.\n"
)
INTRODUCTION = """Python
======

Every name below is a name of ``tiewise``, usually imported as ``tw``. ``import tiewise`` takes a
fraction of a second: a name is loaded when it is first used, and torch only by what fits or runs a
language model.
"""


def list_names() -> dict[str, list[str]]:
    """Return the public names below their headings, from the stub file."""
    stub = Path(tiewise.__file__).with_suffix(".pyi").read_text("utf-8")
    names: dict[str, list[str]] = {heading: [] for heading in [*HEADINGS.values(), "More"]}
    for module, name in re.findall(r"^from \.([\w.]*) import \w+ as (\w+)$", stub, re.MULTILINE):
        heading = HEADINGS.get(module) or HEADINGS.get(module.partition(".")[0])
        names[heading or "More"].append(name)
    return {heading: found for heading, found in names.items() if found}


@functools.cache
def list_results() -> dict[str, str]:
    """Return the classes that public functions return without being public: name -> full name."""
    results: dict[str, str] = {}
    public = [getattr(tiewise, name) for name in tiewise.__all__]
    for function in _public_functions():
        module = sys.modules[function.__module__]
        for word in re.findall(r"\w+", str(function.__annotations__.get("return", ""))):
            kept = _find_class(word, module)
            if kept is not None and kept not in public:
                results[word] = f"{kept.__module__}.{kept.__qualname__}"
    return dict(sorted(results.items()))


def _public_functions() -> Iterator[FunctionType]:
    """Yield the public functions, and the methods and properties of public classes."""
    for name in tiewise.__all__:
        kept = getattr(tiewise, name)
        members = vars(kept).values() if isinstance(kept, type) else [kept]
        for member in members:
            ways = ("fget", "func", "__func__")  # of properties and class methods
            function = next((getattr(member, way) for way in ways if hasattr(member, way)), member)
            if isinstance(function, FunctionType) and not function.__name__.startswith("_"):
                yield function


def _find_class(word: str, module: ModuleType) -> type | None:
    """Return the class of this package that a word means in a module, or None."""
    imported = re.search(
        rf"^ *from (tiewise[\w.]*) import [^\n]*\b{word}\b", inspect.getsource(module), re.MULTILINE
    )
    place = importlib.import_module(imported[1]) if imported else module
    kept = getattr(place, word, None)
    is_ours = isinstance(kept, type) and kept.__module__.startswith("tiewise.")
    return kept if is_ours else None


def write_objects(folder: Path) -> None:
    """Write ``index.rst``, a page for each public name, and one for all errors, to a folder."""
    parts = [INTRODUCTION]
    for title, names in list_names().items():
        pages = {title.lower(): names} if title == "Errors" else {name: [name] for name in names}
        for page, content in pages.items():
            text = "\n".join([_head(page, content), *map(describe_object, content)])
            (folder / f"{page}.rst").write_text(text, "utf-8")
        parts += [_underline(title, "-"), ".. list-table::\n   :widths: 30 70\n"]
        parts += [
            f"   * - :py:obj:`tw.{name} <tiewise.{name}>`\n     - {summarise(name)}"
            for name in names
        ]
        parts += ["\n.. toctree::\n   :hidden:\n", *(f"   {page}" for page in pages), ""]
    results = list_results()
    text = "\n".join([_underline("Results", "="), RESULTS, *map(_describe_class, results.values())])
    (folder / "results.rst").write_text(text, "utf-8")
    parts += [_underline("Results", "-"), RESULTS, ".. toctree::\n   :hidden:\n\n   results\n"]
    parts.append("* " + "\n* ".join(f":py:obj:`{full}`" for full in results.values()) + "\n")
    (folder / "index.rst").write_text("\n".join(parts), "utf-8")


def _head(page: str, content: list[str]) -> str:
    """Return the title of a page."""
    return _underline(f"tiewise.{page}" if content == [page] else page.capitalize(), "=")


def _underline(title: str, mark: str) -> str:
    """Return a title with a line of marks below."""
    return f"{title}\n{mark * len(title)}\n"


def summarise(name: str) -> str:
    """Return the first sentence of a name's docstring."""
    text = inspect.getdoc(getattr(tiewise, name)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def describe_object(name: str) -> str:
    """Return the directive that prints the docstring of a public name."""
    kept = getattr(tiewise, name)
    if isinstance(kept, ModuleType):
        return f".. automodule:: {kept.__name__}\n   :members:\n"
    if isinstance(kept, type):
        bases = "   :show-inheritance:\n" if issubclass(kept, Exception) else ""
        return _describe_class(f"tiewise.{name}") + bases
    return f".. autofunction:: tiewise.{name}\n"


def _describe_class(name: str) -> str:
    return f".. autoclass:: {name}\n   :members:\n"


def show_signature(
    app: Any, what: str, name: str, kept: Any, options: Any, arguments: Any, returned: Any
) -> tuple[str, str] | None:
    """Return arguments and result with their types as the source spells them."""
    del app, options, returned
    if arguments is None or (isinstance(kept, type) and issubclass(kept, Enum)):
        return None
    if name in list_results().values():
        return "", ""
    signature = inspect.signature(kept)
    names = vars(sys.modules[kept.__module__])
    parameters = [
        parameter.replace(annotation=_Spelled(parameter.annotation, names))
        for parameter in signature.parameters.values()
        if not (what == "method" and parameter.name in {"self", "cls"})
    ]
    shown = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    result = "" if what == "class" else repr(_Spelled(signature.return_annotation, names))
    return shown, result


class _Spelled:
    """An annotation whose representation is its source: no modules, and aliases written out."""

    def __init__(self, annotation: Any, names: dict[str, Any]) -> None:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        text = re.sub(r"(?<![\w.])(\w+)", lambda found: _expand(found[1], names), text)
        text = re.sub(r"numpy\.ndarray\[.*numpy\.dtype\[(.*?)\]\]", r"NDArray[\1]", text)
        self.text = re.sub(r"\b([a-z]\w*\.)+(?=\w)", "", text)

    def __repr__(self) -> str:
        return self.text


def _expand(name: str, names: dict[str, Any]) -> str:
    """Return what an alias such as ``OnError`` is short for; other names stay."""
    value = names.get(name)
    is_alias = getattr(value, "__args__", None) and not isinstance(value, type)
    return stringify_annotation(value, "smart").replace("~", "") if is_alias else name


def resolve_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a type such as ``Interval`` in a signature to the page of ``tiewise.Interval``."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    target = f"tiewise.{name}" if name in tiewise.__all__ else list_results().get(name)
    if node.get("refdomain") != "py" or target is None:
        return None
    domain, place = env.get_domain("py"), node.get("refdoc")
    return domain.resolve_xref(env, place, app.builder, "obj", target, node, contnode)
