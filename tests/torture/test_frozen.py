"""Results of version 0.1 that later versions must reproduce.

The full campaign runs every job; the quick one leaves out `frozen.SLOW_JOBS`. Every key of the
fixture is compared. On a machine whose float32 products and float64 functions round as on the
machine that wrote the fixture, numbers agree to 1e-9. On another one, a fit may end elsewhere in
its last digits and a tree may choose another split, and the tolerance says so. A deliberate change
is listed in CHANGES here and in the CHANGELOG. So that fits can be compared, heads begin at random
weights, as in version 0.1.
"""

import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.lib.introspect import opt_func_info
from threadpoolctl import threadpool_info
from torch import nn

from faults import scaled
from frozen import SLOW_RESULTS, collect
from tiewise.models.heads import head_name, reset_head

WITH_SLOW = scaled(quick=0, full=1) == 1
LEFT_OUT = () if WITH_SLOW else SLOW_RESULTS
FIXTURE = Path(__file__).parents[1] / "frozen_0_1.json"
CHANGES: dict[str, str] = {
    "compare": "`tiewise compare` prints one schema for two runs and for more",
    "evaluate baseline/second_orders": "a second order for close calls alone is gone",
    "evaluate tiny": "draws of its intervals follow from the last digits of `oof small`",
}
"""Paths of values that differ on purpose, with the reason."""
REFERENCES = ("bayes", "class_prior", "length_only", "uniform")
CHANGES |= {
    f"evaluate baseline/{model}{metric}/{end}": "shares have Wilson intervals, which keep a width"
    for model in ("", *(f"baselines/{name}/" for name in REFERENCES))
    for metric in ("accuracy", "decisive_accuracy", "macro_f1", "auc")
    for end in ("low", "high")
    # These are one half, whatever the labels are, and their interval has no width.
    if (model, metric)
    not in [("baselines/uniform/", name) for name in ("decisive_accuracy", "auc")]
}
CHANGES |= {
    f"evaluate baseline/{model}ece": "the key is now the L1 error that has this name"
    for model in ("", *(f"baselines/{name}/" for name in REFERENCES))
}
CHANGES |= {
    f"evaluate baseline/human_agreement/{metric}/{end}": "two groups leave a share open"
    for metric in ("agreement", "majority_agreement")
    for end in ("low", "high")
}
RENAMED = {
    "/conversations": "/prompt groups",
    "rows of one conversation": "rows with a shared prompt group",
    "rows of one prompt": "rows with a repeated prompt",
    "rows with a response again": "rows with a repeated response",
    "rows with all texts again": "rows with all texts repeated",
    "identical answers": "identical responses",
    "a turn": "missing turn",
    "nine tenths": "90th percentile",
    "most": "maximum",
}
"""Endings of names in the audit that version 0.2 renamed."""
ROUNDED = ("oof small", "oof shaped", "predicted tiny", "predicted swap")
"""Paths of float32 scores that version 0.1 computed as a tree of shared prefixes, now packed: other
rows share a forward pass, and probabilities differ by up to 1e-6."""


@pytest.fixture(scope="module")
def frozen():
    return json.loads(FIXTURE.read_text())


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Run the jobs once, in a folder of their own."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("frozen"))
    try:
        with mock.patch("tiewise.models.loading.reset_head", draw_head):
            yield collect(with_slow=WITH_SLOW)
    finally:
        os.chdir(here)


def draw_head(network, config):
    """Give a network a linear head with the random weights of version 0.1."""
    state = torch.get_rng_state()
    reset_head(network, config)
    torch.set_rng_state(state)
    head = getattr(network, head_name(network))
    nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)  # draws as many
    nn.init.normal_(head.weight, std=network.config.initializer_range)


def flatten(value, path=""):
    """Yield (path, leaf) of nested dictionaries; lists of numbers are leaves."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{path}/{key}" if path else key)
    else:
        yield path, value


def test_results_equal_version_0_1(frozen, collected):
    """Probabilities, scores, audits, token ids and files are those of version 0.1."""
    is_alike = collected["machine"] == frozen["machine"] and has_wide_arithmetic()
    tolerance = 1e-9 if is_alike else 2e-2
    found = dict(flatten(collected))
    different = []
    for path, before in flatten(frozen):
        if path == "machine" or path in LEFT_OUT or path.startswith(tuple(CHANGES)):
            continue
        now = found.get(rename(path), "missing")
        allowed = max(tolerance, 1e-6) if path in ROUNDED else tolerance
        if not is_close(before, now, allowed):
            different.append((path, str(before)[:80], str(now)[:80]))
    assert not different


def test_listed_changes_are_changes(frozen, collected):
    """Each entry of CHANGES names a value that differs, so the list holds no stale entry."""
    found = dict(flatten(collected))
    for change in CHANGES:
        paths = [path for path, _ in flatten(frozen) if path.startswith(change)]
        assert any(
            path not in found or found[path] != dict(flatten(frozen))[path] for path in paths
        )


def rename(path):
    """Return the path of a value in version 0.2."""
    for old, new in RENAMED.items():
        if path.startswith("audit") and path.endswith(old):
            return path.removesuffix(old) + new
    return path


def has_wide_arithmetic():
    """Tell whether exponentials and products use AVX-512, as where the fixture was written.

    OpenBLAS takes the functions of Haswell on processors that it does not know.
    """
    found = opt_func_info(func_name="^exp$", signature="float64")["exp"]
    names = [target["current"] for target in found.values()]
    products = {library.get("architecture") for library in threadpool_info()}
    is_wide = any("X86_V4" in name or "AVX512" in name for name in names)
    return is_wide and bool(products & {"SkylakeX", "Cooperlake", "SapphireRapids"})


def is_close(before, now, tolerance):
    """Compare numbers within the tolerance, all other values exactly."""
    if isinstance(before, bool | str | int) or before is None:
        return before == now
    try:
        left, right = np.asarray(before, float), np.asarray(now, float)
    except (TypeError, ValueError):
        return before == now
    return left.shape == right.shape and np.allclose(left, right, rtol=0, atol=tolerance)
