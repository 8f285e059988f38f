"""The heading of a report, and the settings of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiewise.config import (
    BASELINE,
    BLEND,
    RunConfig,
    closest_preset,
    fields_in_use,
    public_name,
)
from tiewise.files import read_json
from tiewise.report.content import ReportData
from tiewise.report.text import flatten, label_text
from tiewise.runs import listing
from tiewise.runs.folder import RunFolder

_MAX_NAMES = 3


@dataclass(frozen=True)
class Heading:
    """Texts at the top of a report."""

    run: str
    data: str
    """Names of the data files."""

    model: str
    """Preset, and what differs from it."""

    date: str
    """Day on which the run was started, as ``2026-11-29``; empty if it is not known."""

    rows: str
    """Number of pairs, prompt groups and folds."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run that have an effect, by name."""

    changed: dict[str, str]
    """Those that differ from their defaults."""

    others: dict[str, str]


def describe_run(data: ReportData) -> Heading:
    """Return the heading of the report of a run."""
    run, folds = data.run, sorted(set(data.oof["fold"]))
    known = listing.describe_run(str(run.path), run.path.parent.parent)
    named = "all" if len(folds) == run.config.data.n_splits else ", ".join(map(str, folds))
    n_groups = data.oof["group"].nunique()
    return Heading(
        run=label_text(run.name),
        data=_list_names(known.data),
        model=describe_model(run.config),
        date=known.started[:10],
        rows=f"{len(data.oof):,} pairs in {n_groups:,} prompt groups, each predicted by a model "
        f"that was not fitted on it (folds: {named} of {run.config.data.n_splits})",
    )


def describe_model(config: RunConfig) -> str:
    """Return the preset of a configuration, the fields that differ from it, and the backbone.

    >>> from tiewise.config import load_preset
    >>> describe_model(load_preset("baseline"))
    'preset baseline (feature model)'
    """
    preset, changed = closest_preset(config)
    if preset == BLEND:
        return "blend of other runs"
    backbone = config.model.backbone
    shown = "feature model" if backbone == BASELINE else label_text(public_name(backbone))
    if config.model.states is not None:
        shown += f" with states of {label_text(public_name(config.model.states))}"
    differing = f", changed: {_list_names(changed)}" if changed else ""
    return f"preset {preset}{differing} ({shown})"


def list_settings(run: RunFolder) -> Settings:
    """Return the settings that the model of a run reads; for a blend also its members."""
    used, defaults = flatten(fields_in_use(run.config)), flatten(RunConfig().to_dict())
    for name in ("data.data", "data.extra_data"):
        del used[name]  # paths of this machine; the inputs name the files
    for name in {"model.backbone", "model.states"} & set(used):
        used[name] = used[name] and public_name(used[name])
    changed = {name: value for name, value in used.items() if value != defaults[name]}
    others = {name: value for name, value in used.items() if name not in changed}
    if run.mixture_path.is_file():
        mixture = read_json(run.mixture_path)
        weights = zip(mixture["members"], mixture["weights"], strict=True)
        changed |= flatten({f"weight of {name}": f"{weight:.3f}" for name, weight in weights})
    return Settings(changed, others)


def _list_names(names: Sequence[str]) -> str:
    """List the first names, and count the others."""
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join([*(label_text(name) for name in names[:_MAX_NAMES]), *more])
