"""Sphinx: pages in Markdown, the reference from code and docstrings.

The pages in ``reference`` are made from the parser, the configuration and the public names, so no
command, flag, field or name can be missing there.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import tiewise

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference_pages.commands import write_commands  # noqa: E402 - found in the folder above
from reference_pages.configuration import write_configuration  # noqa: E402
from reference_pages.objects import (  # noqa: E402
    list_names,
    resolve_public_name,
    show_signature,
    write_objects,
)

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
myst_enable_extensions = ["colon_fence", "deflist"]
copybutton_prompt_text = "$ "  # copies commands without their output
smartquotes = False  # they would turn the dashes of --flag into one

# Pages with a kernel in their front matter are executed, every time: a cache would not notice that
# the package has changed.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress, and warnings that name folders of this machine
nb_execution_timeout = 600  # seconds for a cell

autodoc_member_order = "bysource"
# scikit-learn adds these methods to estimators; their docstrings refer to its own pages.
autodoc_default_options = {
    "exclude-members": "get_metadata_routing, set_fit_request, set_predict_request, "
    "set_predict_proba_request, set_score_request"
}
python_use_unqualified_type_names = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {name: f"tiewise.{name}" for part in list_names().values() for name in part}
numpydoc_xref_ignore = "all"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_title = f"tiewise {version}"
html_copy_source = False
html_show_copyright = False


def write_reference() -> None:
    """Write the folder ``reference`` again."""
    folder = HERE / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("commands", "python"):
        (folder / name).mkdir(parents=True)
    write_commands(folder / "commands")
    write_configuration(folder)
    write_objects(folder / "python")


def setup(app: Any) -> None:
    """Write the reference, and link types in signatures to their pages."""
    write_reference()
    app.connect("autodoc-process-signature", show_signature)
    app.connect("missing-reference", resolve_public_name)
