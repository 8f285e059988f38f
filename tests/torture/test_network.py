"""Neither forked test processes nor the import of any module reach the network."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import tiewise
from faults import BLOCKED, Forked, reach_out


def test_forked_processes_have_no_network(tmp_path):
    """A forked process reaches no other machine."""
    assert Forked(tmp_path, reach_out).end() == BLOCKED


def test_imports_make_no_network_calls():
    """All modules import, also those with torch and transformers, without an offline setting."""
    modules = pkgutil.walk_packages(tiewise.__path__, "tiewise.")
    left_out = {"tiewise.__main__"}
    if importlib.util.find_spec("ray") is None:
        left_out.add("tiewise.cluster.ray_pool")
    names = [module.name for module in modules if module.name not in left_out]
    command = [sys.executable, "-c", f"import no_network, {', '.join(names)}"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
