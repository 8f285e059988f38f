"""Commands in another process that stop inside a chosen function until they are released.

Two commands can thus overlap at one place, however busy the machine is.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tiewise.cli", "tiewise.crossfit", "tiewise.judges.prediction"])
_SECONDS = 120


class Paused:
    """A command that has reached `place`, such as ``tiewise.api:fit_config``, and waits there."""

    def __init__(self, folder: Path, place: str, *words: Any) -> None:
        self._reached, self._released = _CONTEXT.Event(), _CONTEXT.Event()
        self._process = _CONTEXT.Process(
            target=_run_and_pause,
            args=(folder, place, [str(word) for word in words], self._reached, self._released),
        )
        self._process.start()
        assert self._reached.wait(_SECONDS), (folder / "paused.log").read_text()

    @property
    def id(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def release(self) -> int | None:
        """Let it continue to its end; return its exit status."""
        self._released.set()
        self._process.join(_SECONDS)
        return self._process.exitcode

    def kill(self) -> None:
        """End it where it waits, as SIGKILL does."""
        self._process.kill()
        self._process.join(_SECONDS)


def _run_and_pause(folder: Path, place: str, words: list[str], reached: Any, released: Any) -> None:
    from tiewise.cli import main

    os.chdir(folder)
    with (folder / "paused.log").open("a") as log:
        sys.stdout = sys.stderr = log
        module, _, name = place.partition(":")
        *path, attribute = name.split(".")
        owner: Any = importlib.import_module(module)
        for part in path:
            owner = getattr(owner, part)
        function = getattr(owner, attribute)

        def pause(*args: Any, **options: Any) -> Any:
            setattr(owner, attribute, function)
            reached.set()
            assert released.wait(_SECONDS)
            return function(*args, **options)

        setattr(owner, attribute, pause)
        sys.exit(main(words))
