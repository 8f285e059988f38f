"""The package as a whole: it loads quickly, torch is optional, and every example is true."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import tiewise
from tiewise import errors
from tiewise.data.simulation.simulate import simulate
from tiewise.features import binary_models

WITH_TORCH = ("tiewise.models.", "tiewise.training.", "tiewise.serving.export")
"""Prefixes of the modules that import torch."""

EXTRAS = {
    "fastapi", "huggingface_hub", "jinja2", "markupsafe", "matplotlib", "prometheus_client",
    "ray", "safetensors", "starlette", "urllib3", "uvicorn",
}  # fmt: skip
"""Light packages that only some modules need, and that an installation without extras lacks."""


def _modules():
    found = pkgutil.walk_packages(tiewise.__path__, "tiewise.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def _can_be_imported(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in EXTRAS:
            return False
        raise
    return True


CORE = [name for name in _modules() if not name.startswith(WITH_TORCH) and _can_be_imported(name)]


NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event.split(".")[0] == "socket" and event not in ("socket.__new__", "socket.gethostname"):
        raise RuntimeError(f"network call on import: {event} {arguments}")
sys.addaudithook(refuse)
"""


def _run(code):
    """Run code in a fresh interpreter that has no network; return what it printed."""
    command = [sys.executable, "-c", NO_NETWORK + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


WITHOUT_TORCH = """
import sys
MISSING = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets",
           "safetensors", "huggingface_hub", "gguf")
class Missing:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
from tiewise.cli import main
from tiewise.features import binary_models
binary_models._MAX_TREES = 10
sys.exit(main())
"""


def test_baseline_fit_without_torch(tmp_path):
    """Without the extra `train` the feature model is fitted, scored, and has no model card."""
    tiewise.write_pairs(simulate(60, seed=0), tmp_path / "train.csv")
    arguments = ["fit", "--preset", "baseline", "--data", "train.csv", "--run", "first"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "artifacts" / "runs" / "first" / "fold0"
    assert (folder / "scores.json").is_file()
    assert not (folder / "adapter" / "README.md").exists()
    assert "no model card" in done.stderr


def test_import_loads_nothing_heavy():
    """Before a name is used, no library heavier than numpy is loaded."""
    heavy = "{'pandas', 'scipy', 'sklearn', 'joblib', 'pyarrow', 'torch', 'transformers', 'tyro'}"
    assert _run(f"import sys, tiewise; print({heavy} & set(sys.modules))") == "set()"


def test_core_modules_load_no_torch():
    """Only models, training and the export import torch; no module reaches the network."""
    imports = "; ".join(f"import {name}" for name in CORE)
    banned = "{'torch', 'transformers', 'peft', 'bitsandbytes', 'datasets'}"
    assert _run(f"{imports}; import sys; print({banned} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("name", tiewise.__all__)
def test_public_name_has_docstring(name):
    """Every name in ``__all__`` exists and has a docstring."""
    value = getattr(tiewise, name)
    assert value.__doc__


def test_every_error_is_public():
    """Each error class is a name of `tiewise`, and its docstring says when it is raised."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    own = [error for error in classes if error.__module__ == errors.__name__]
    assert errors.RunError in own
    for error in own:
        assert getattr(tiewise, error.__name__) is error
        assert error is errors.TiewiseError or error.__doc__.startswith("Raised when ")


def test_no_module_hides_a_public_name():
    """A module with the name of a public function would replace it once imported."""
    modules = {name.removeprefix("tiewise.").split(".")[0] for name in _modules()}
    assert modules & set(tiewise.__all__) == {"plot"}
    assert tiewise.plot.__name__ == "tiewise.plot"


@pytest.mark.parametrize("name", CORE)
def test_examples_are_true(name, monkeypatch):
    """Each example in a docstring gives the output that it shows."""
    monkeypatch.setattr(binary_models, "_MAX_TREES", 10)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_metadata_has_the_version():
    """The installed metadata and the package agree."""
    from importlib.metadata import version

    assert version("tiewise") == tiewise.__version__
