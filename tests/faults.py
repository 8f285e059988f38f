"""Inject faults: stop processes at any moment or system call, and damage files.

Processes are forked from one that has imported everything, so that a fit takes one or two seconds
instead of ten. ``TIEWISE_TORTURE`` (quick, the default, or full) sets the number of faults, and
``TIEWISE_RESUMED`` the number of faults after which a fit is resumed to its end.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tiewise.files import digest_file
from tiewise.runs.folder import FoldFolder

os.environ.setdefault("OMP_NUM_THREADS", "1")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tiewise.cli",
        "tiewise.crossfit",
        "tiewise.training.fit",
        "tiewise.models.pretrained",
        "transformers.models.gemma2.modeling_gemma2",
        "peft.tuners.lora",
    ]
)
FLAGS = ("--preset", "tiny", "--data", "train.csv")
"""A fit of 24 steps with a checkpoint every second step."""


def scaled(*, quick: int, full: int) -> int:
    """Return the number of faults to inject."""
    return full if os.environ.get("TIEWISE_TORTURE") == "full" else quick


def n_resumed(*, quick: int, full: int) -> int:
    """Return the number of faults, spread over all, after which a fit is resumed to its end."""
    return int(os.environ.get("TIEWISE_RESUMED", scaled(quick=quick, full=full)))


class Forked:
    """A function that runs in its own process and in `folder`; its output goes to a file.

    An integer that the function returns is the exit status.
    """

    def __init__(self, folder: Path, function: Callable[..., Any], *arguments: Any) -> None:
        self._log_path = folder / f"{random.getrandbits(64):x}.log"
        self._process = CONTEXT.Process(
            target=_run, args=(folder, self._log_path, function, arguments)
        )
        self._process.start()

    @property
    def id(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it is still running."""
        return self._process.is_alive()

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.is_alive():
            os.kill(self.id, number)

    def wait_until_paused(self) -> None:
        """Return when it has stopped itself; see :func:`fit_to`."""
        status_path = Path(f"/proc/{self.id}/status")
        while "\nState:\tT" not in status_path.read_text():
            assert self.is_alive, self.messages()
            time.sleep(0.01)

    def end(self, timeout: float = 250) -> int | None:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        self._process.join(timeout)
        return self._process.exitcode

    def messages(self) -> str:
        """Return its standard output and standard error."""
        return self._log_path.read_text(errors="replace") if self._log_path.is_file() else ""


def tiewise(folder: Path, *words: str) -> Forked:
    """Start the command line in `folder`."""
    return Forked(folder, _call_main, *words)


def fit(folder: Path, run: str, *flags: str) -> Forked:
    """Start a fit of fold 0 in `folder`."""
    return tiewise(folder, "fit", *FLAGS, "--run", run, *flags)


def fit_to(folder: Path, run: str, step: int) -> Forked:
    """Start a fit and return it paused after a step, before it saves; SIGCONT resumes it.

    A signal therefore arrives at the same step on a slow machine too.
    """
    process = Forked(folder, _pause_after, step, "fit", *FLAGS, "--run", run)
    process.wait_until_paused()
    return process


def fold_of(folder: Path, run: str) -> FoldFolder:
    """Return the fold that :func:`fit` fits."""
    return FoldFolder(folder / "artifacts" / "runs" / run / "fold0")


def outcome(folder: Path, run: str) -> dict[str, str]:
    """Return the digests of the files of a finished fold, except the card, which names the run."""
    fold = fold_of(folder, run)
    assert fold.is_finished
    paths = [*sorted(fold.adapter_dir.iterdir()), fold.oof_path, fold.history_path]
    return {path.name: digest_file(path) for path in paths if path.name != "README.md"}


BLOCKED, CONNECTED = 7, 1


def reach_out() -> int:
    """Try to reach another machine, by name and by address."""
    for address in (("example.com", 443), ("192.0.2.1", 443)):
        try:
            socket.create_connection(address, timeout=0.2)
        except RuntimeError:
            continue
        except OSError:
            return CONNECTED
    return BLOCKED


def _run(folder: Path, log_path: Path, function: Callable[..., Any], arguments: Any) -> None:
    import torch

    import no_network  # noqa: F401 - the import blocks the network

    os.chdir(folder)
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def _pause_after(step: int, *words: str) -> int:
    """Run the command line; the process stops itself after it has logged a step."""
    from tiewise.training.callbacks import History

    log = History.on_log

    def log_and_pause(self: History, args: Any, state: Any, control: Any, **others: Any) -> None:
        log(self, args, state, control, **others)
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGSTOP)

    History.on_log = log_and_pause  # type: ignore[method-assign]
    return _call_main(*words)


def with_free_disk(n_bytes: int, *words: str) -> int:
    """Run the command line while every disk reports `n_bytes` of free space."""
    usage = shutil.disk_usage
    shutil.disk_usage = lambda path: usage(path)._replace(free=n_bytes)
    return _call_main(*words)


def with_small_files(n_bytes: int, *words: str) -> int:
    """Run the command line while no file can grow beyond `n_bytes`."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    return _call_main(*words)


def _call_main(*words: str) -> int:
    from tiewise.cli import main

    return main(words)


# ---- system calls ---------------------------------------------------------------------------


_PR_SET_PTRACER = 0x59616D61

Call = tuple[str, int]
"""Name of a system call, and its number among the calls of that name."""


def kill_at(action: Callable[[], None], call: Call | None) -> tuple[int, list[Call]]:
    """Run `action` in a forked process and kill it as it enters a system call.

    Return its exit status (0, or minus the signal), and its system calls.
    """
    assert shutil.which("strace"), "This needs strace: apt-get install strace."
    child = os.fork()
    if child == 0:
        # ptrace may be limited to parents; this lets strace, a sibling, attach too.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))
        os.kill(os.getpid(), signal.SIGSTOP)
        action()
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    inject = [] if call is None else ["-e", f"inject={call[0]}:signal=KILL:when={call[1]}"]
    command = ["strace", "-p", str(child), "-o", "calls", *inject]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert "attached" in (line := tracer.stderr.readline()), line
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        tracer.stderr.read()
    return os.waitstatus_to_exitcode(status), _read_calls(Path("calls"))


def _read_calls(path: Path) -> list[Call]:
    seen: Counter[str] = Counter()
    calls = []
    for name in re.findall(r"^(\w+)\(", path.read_text(errors="replace"), re.MULTILINE):
        seen[name] += 1
        calls.append((name, seen[name]))
    return calls


# ---- files ----------------------------------------------------------------------------------


def damages(path: Path, n_bits: int, seed: int) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Yield named ways to damage a file like the one at `path`."""
    size = path.stat().st_size
    yield "removed", Path.unlink
    yield "emptied", lambda path: path.write_bytes(b"")
    yield "halved", lambda path: os.truncate(path, size // 2)
    yield "one byte short", lambda path: os.truncate(path, size - 1)
    yield "one byte more", lambda path: path.write_bytes(path.read_bytes() + b"\0")
    yield "zeroed", lambda path: path.write_bytes(bytes(size))
    yield "a folder", lambda path: (path.unlink(), path.mkdir())
    yield "a broken link", lambda path: (path.unlink(), path.symlink_to("nowhere"))
    places = random.Random(f"{path.name} {seed}").choices(range(size * 8), k=n_bits)
    for bit in (0, size * 8 - 1, *places):
        yield f"bit {bit} flipped", lambda path, bit=bit: flip(path, bit)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def copy_run(folder: Path, run: str, name: str) -> FoldFolder:
    """Copy a run under another name; return its fold."""
    runs = folder / "artifacts" / "runs"
    shutil.copytree(runs / run, runs / name, symlinks=True)
    return fold_of(folder, name)
