"""The models that the demo offers, and for each what it is and what it cannot know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiewise.config import BASELINE, BLEND, find_backbone
from tiewise.report.text import label_text
from tiewise.runs.folder import RunFolder, open_run
from tiewise.runs.listing import RunSummary, describe_run, list_runs

_CANNOT_READ = (
    "It counts and compares, and cannot read: it does not know whether a response is true, and a "
    "fluent wrong response beats a clumsy right one."
)
_CANNOT_CHECK = (
    "It has learned what the people who voted on these data prefer. It cannot check facts, and on "
    "texts unlike these data it may be worse than its scores show."
)


@dataclass(frozen=True)
class Model:
    """A model to choose in the demo."""

    name: str
    about: str
    """Sentences on its data, its scores and its limits."""

    run: Path | None
    """Folder of its run; None for the model in the package."""


SHIPPED = Model(
    "lengths and structure only",
    "The small model that comes with tiewise: two logistic regressions on lengths, layout, "
    "repetition, overlap with the prompt and refusals, fitted to votes of 2023, mostly in English. "
    f"{_CANNOT_READ} Fit a model to your own data with tiewise fit.",
    None,
)


def list_models(run: RunFolder | None, artifacts_dir: Path) -> list[Model]:
    """Return the models to offer: the named run, the newest runs, the model in the package.

    Runs without a finished fold are left out. RunError is raised if the named run has none.
    """
    found = [known for known in list_runs(artifacts_dir).runs if known.folds and not known.problem]
    if run is not None:
        run.choose_folds()
        named = describe_run(str(run.path), artifacts_dir)
        found = [named, *(known for known in found if Path(known.path) != run.path)]
    return [*(_describe(known, artifacts_dir) for known in found), SHIPPED]


def _describe(known: RunSummary, artifacts_dir: Path) -> Model:
    model = open_run(known.path, artifacts_dir).config.model
    backbone = model.backbone
    kind = {BASELINE: "The feature model", BLEND: "A blend of other runs"}.get(
        backbone, f"A language model (preset {known.preset}{' with changes' * bool(known.changed)})"
    )
    data = label_text(", ".join(known.data) or "unknown data", 120)
    pairs = "" if known.n_pairs is None else f" ({known.n_pairs:,} pairs)"
    score = f", log loss {known.scores['log_loss']:.3f} out of fold" if known.scores else ""
    limits = _CANNOT_CHECK if find_backbone(model) or backbone == BLEND else _CANNOT_READ
    about = f"{kind}, fitted to {data}{pairs}{score}. {limits}"
    return Model(f"run {label_text(known.name)}", about, Path(known.path))
