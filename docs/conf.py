"""Sphinx: pages in Markdown, the reference from docstrings.

The reference lists every name of ``tiewise/__init__.pyi``, by the module it comes from, so no
public name can be missing there.
"""

import re
from pathlib import Path
from typing import Any

import tiewise

HERE = Path(__file__).parent
TITLES = {
    "data.formats": "Reading and writing",
    "data.parse": "Cells",
    "data.pairs": "Pairs",
    "data.labels": "Labels",
    "data.folds": "Folds",
    "evaluation.scores": "Scores",
    "evaluation.intervals": "Intervals",
    "evaluation.position": "Position bias",
    "evaluation.calibration": "Calibration",
    "judges.serving": "Judging",
    "api": "Fitting and runs",
    "runs.tables": "Tables of a run",
    "errors": "Errors",
}

project = "tiewise"
author = "The tiewise authors"
version = release = tiewise.__version__

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
]
exclude_patterns = ["_build", "*.ipynb"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = "$ "  # copies commands without their output

# Pages with a kernel in their front matter are executed, every time: a cache would not notice that
# the package has changed.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds for a cell

autodoc_member_order = "bysource"
# scikit-learn adds these methods to estimators; their docstrings refer to its own pages.
autodoc_default_options = {
    "exclude-members": "get_metadata_routing, set_fit_request, set_predict_request, "
    "set_predict_proba_request, set_score_request"
}
autodoc_typehints = "none"  # the docstrings say shape, dtype and range
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"tiewise {version}"
html_copy_source = False


def write_reference() -> None:
    """Write ``reference.rst``: a section for each module that public names come from."""
    stub = Path(tiewise.__file__).with_suffix(".pyi").read_text("utf-8")
    names: dict[str, list[str]] = {}
    for module, name in re.findall(r"^from \.([\w.]+) import \w+ as (\w+)$", stub, re.MULTILINE):
        names.setdefault(module, []).append(name)
    order = [*(module for module in TITLES if module in names), *sorted(set(names) - set(TITLES))]
    parts = ["Reference", "=========", "", "Everything is a name of ``tiewise``.", ""]
    for module in order:
        title = TITLES.get(module) or module.rpartition(".")[2].replace("_", " ").capitalize()
        parts += [title, "-" * len(title), ""]
        for name in names[module]:
            is_class = isinstance(getattr(tiewise, name), type)
            parts.append(f".. auto{'class' if is_class else 'function'}:: tiewise.{name}")
            parts += ["   :members:", "   :show-inheritance:"] if is_class else []
            parts.append("")
    (HERE / "reference.rst").write_text("\n".join(parts), "utf-8")


def setup(app: Any) -> None:
    """Write what is made."""
    write_reference()
