"""Sections of the report: for each a sentence, a figure and a table of the numbers.

A builder takes the :class:`ReportData` and returns a :class:`Section`, or an :class:`Omission` with
the reason. Texts are plain; the template escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiewise.config import BASELINE
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.calibration import calibrate
from tiewise.evaluation.intervals import FEW_GROUPS, Interval
from tiewise.evaluation.references import RunScores, reference_probs
from tiewise.evaluation.slices import Slices, SliceScores, evaluate_slices
from tiewise.report import figures, tables
from tiewise.report.text import SCORE_NAMES, SHARES, excerpt, label_text, negate, show, words_of
from tiewise.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SLICES = 16  # shown per attribute
N_CASES = 20
MAX_CHARACTERS = 1_600  # of a prompt or a response, over all its turns
NEEDS_TEXTS = "the texts are needed: name the data files of the run with --data"

_MEANINGS = {
    "log_loss": "nats per pair; lower is better",
    "accuracy": "the most probable outcome is the label",
    "brier": "0 to 2; lower is better",
    "ece": "0 to 1; lower is better",
    "rms_calibration_error": "0 to 1; lower is better; without the bias of noise",
    "decisive_accuracy": "A or B is right, without ties",
}
_MAX_NAMED_SLICES = 3
_MAX_TURNS = 6


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure."""

    name: str  # of its file
    draw: Callable[[], Axes]
    alt: str  # description for those who do not see it


@dataclass(frozen=True)
class Section:
    """One section of the report."""

    name: str  # anchor in the page
    title: str
    text: str
    panels: list[Panel] = field(default_factory=list)
    caption: str = ""
    table: pd.DataFrame | None = None  # texts; the first column names the row
    is_table_open: bool = False
    tiles: list[tuple[str, str, str]] = field(default_factory=list)  # name, value, explanation
    cases: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # omitted parts, and why


@dataclass(frozen=True)
class Omission:
    """A section that cannot be written, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class ReportData:
    """Everything that a report is made of."""

    run: RunFolder
    oof: pd.DataFrame  # labelled out-of-fold predictions
    folds: pd.DataFrame
    scores: RunScores
    pairs: pd.DataFrame | None  # texts of the rows of `oof`, in the same order


def build_scores(data: ReportData) -> Section:
    """Compare the run with the references."""
    scores, references = data.scores.scores, data.scores.baselines
    ranked = sorted(references, key=lambda name: (name == "bayes", references[name].log_loss.value))
    predictors = {"this run": scores, **{words_of(name): references[name] for name in ranked}}
    losses = pd.DataFrame(
        [(name, *vars(of.log_loss).values(), of is scores) for name, of in predictors.items()],
        columns=["name", *tables.ENDS, "is_run"],
    )
    columns = {
        name: [show(getattr(of, metric), metric) for metric in SCORE_NAMES]
        for name, of in predictors.items()
    }
    return Section(
        "scores",
        "Scores",
        _compare_with_references(data.scores),
        [Panel("scores", lambda: figures.draw_log_loss(losses), _describe_losses(losses))],
        "Log loss with 95 % intervals by bootstrap over prompt groups. Hollow: references, fitted "
        "on the same folds. Bayes, for simulated data: the true probabilities, the optimum.",
        pd.DataFrame({"score": list(SCORE_NAMES.values()), **columns}),
        is_table_open=True,
        tiles=[_tile(metric, getattr(scores, metric)) for metric in _MEANINGS],
    )


def build_calibration(data: ReportData) -> Section:
    """Compare predicted probabilities with the shares of the outcomes."""
    table = tables.reliability(data.oof)
    return Section(
        "calibration",
        "Calibration",
        f"Expected calibration error (ECE, L1) {show(data.scores.scores.ece)}; debiased RMS error "
        f"{show(data.scores.scores.rms_calibration_error)}. {_judge_calibration(data)}",
        [_reliability_panel(table, outcome) for outcome in tables.OUTCOMES],
        "Reliability diagrams: pairs in bins of equal size by predicted probability, and the share "
        "of pairs with that outcome, with 95 % intervals. Dashed: perfect calibration.",
        tables.to_texts(table),
    )


def build_confusion(data: ReportData) -> Section:
    """Count pairs by label and most probable outcome."""
    table = tables.confusion(data.oof)
    recall = np.diag(table) / table.sum(axis=1).clip(lower=1)
    text = "Recall by class: " + ", ".join(f"{name} {x:.0%}" for name, x in recall.items()) + "."
    return Section(
        "confusion",
        "Confusion matrix",
        text,
        [Panel("confusion", lambda: figures.draw_confusion(table), f"Confusion matrix. {text}")],
        "Rows: labels; columns: the most probable outcome. Shares add up to 100 % per row.",
        tables.to_texts(table.rename_axis("label").reset_index()),
    )


def build_length(data: ReportData) -> Section | Omission:
    """Relate votes and predictions to the length of the responses."""
    title = "Length bias"
    if not {"n_chars_a", "n_chars_b"} <= set(data.folds.columns):
        return Omission(title, "folds.parquet has no lengths of the responses")
    positions = pd.Index(data.folds["id"]).get_indexer(pd.Index(data.oof["id"]))
    references = reference_probs(data.folds, positions)[0]
    known = {words_of(k): v for k, v in references.items() if k == "length_only"}
    table = tables.length_gap(data.oof, data.folds, known)
    leads = tables.lead_of_longer(data.oof, data.folds)
    text = (
        f"The longer response leads by {show(leads['votes'])} in votes and by "
        f"{show(leads['predictions'])} in predictions."
    )
    if "length_only" in data.scores.differences:
        gain = negate(data.scores.differences["length_only"]["log_loss"])
        shown = "The gain" if gain.low > 0 else "No gain is shown"
        text += f" {shown} over a reference that sees only lengths: {show(gain)} nats per pair."
    return Section(
        "length",
        title,
        text,
        [
            Panel("length-lead", lambda: figures.draw_length_lead(table), f"Lead of A. {text}"),
            Panel(
                "length-loss",
                lambda: figures.draw_length_loss(table),
                "Log loss of the model and of length only, by the relative length of A and B.",
            ),
        ],
        "First: lead of A by relative length. Where votes and model agree, the model weighs length "
        "as people do. Second: log loss by relative length, of the model and of length only.",
        tables.to_texts(table),
    )


def build_position(data: ReportData) -> Section | Omission:
    """Measure how the order of the responses changes the predictions."""
    title, bias = "Position bias", data.scores.position_bias
    if bias is None and data.run.config.model.backbone == BASELINE:
        return Omission(title, "the feature model is symmetric by construction")
    if bias is None:
        return Omission(title, "only one order of the responses was scored")
    flips = [show(rate, "share") for rate in (bias.flip_rate_before, bias.flip_rate_after)]
    shown = {
        "": ["lead of the first response in probability", "pairs whose outcome flips"],
        "one order": [show(bias.bias_before), flips[0]],
        "both orders averaged": [show(bias.bias_after), flips[1]],
    }
    return Section(
        "position",
        title,
        f"{show(bias.bias_before)} in probability for the first response. The order changes the "
        f"most probable outcome of {flips[0]} of the pairs; after averaging both orders, of "
        f"{flips[1]}.",
        table=pd.DataFrame(shown),
        is_table_open=True,
    )


def build_slices(data: ReportData) -> Section | Omission:
    """Score subsets of the pairs, and name those that differ from the rest."""
    slices = evaluate_slices(data.folds if data.pairs is None else data.pairs, data.oof)
    chosen, notes = _choose_slices(slices)
    if not chosen:
        return Omission("Slices", NEEDS_TEXTS if data.pairs is None else " ".join(notes))
    table = slices.to_frame()
    wanted = {(row.family, row.slice) for row in chosen}
    table = table[[key in wanted for key in zip(table["family"], table["slice"], strict=True)]]
    shown = {
        "slice": [_slice_name(row) for row in chosen],
        "pairs": [f"{row.n:,}" for row in chosen],
        "log loss": [show(row.log_loss) for row in chosen],
        "difference to the rest": [show(row.difference) for row in chosen],
        "p (Holm)": ["" if np.isnan(row.p_holm) else f"{row.p_holm:.3f}" for row in chosen],
        "accuracy": [show(row.accuracy, "accuracy") for row in chosen],
    }
    overall, text = data.scores.scores.log_loss.value, _name_different(slices)
    alt = f"Log loss by slice. {text}"
    return Section(
        "slices",
        "Slices",
        text,
        [Panel("slices", lambda: figures.draw_slices(table, overall), alt)],
        "Log loss of each slice with its 95 % interval and number of pairs; dashed: all pairs. "
        "Filled: differs from all other pairs after Holm's correction. Intervals from fewer than "
        f"{FEW_GROUPS} prompt groups are rough and may leave the figure.",
        pd.DataFrame(shown),
        notes=notes,
    )


def build_training(data: ReportData) -> Section | Omission:
    """Show the training loss and the held-out log loss of each fold."""
    title, run = "Training", data.run
    found = {
        fold: tables.read_history(run.fold(fold).history_path)
        for fold in sorted(data.oof["fold"].unique())
    }
    histories = {fold: history for fold, history in found.items() if len(history)}
    if not histories:
        return Omission(title, "no fold has a history.jsonl (the feature model has no steps)")
    held_out = tables.loss_by_fold(data.oof)
    losses = [interval.value for interval in held_out.values()]
    shown = {
        "fold": [f"fold {fold}" for fold in histories],
        "steps": [f"{history['step'].max():,.0f}" for history in histories.values()],
        "rows": [f"{history['rows'].sum():,.0f}" for history in histories.values()],
        "tokens": [f"{history['tokens'].sum():,.0f}" for history in histories.values()],
        "last training loss": [f"{h['loss'].iloc[-1]:.3f}" for h in histories.values()],
        "held-out log loss": [show(held_out[fold]) for fold in histories],
    }
    return Section(
        "training",
        title,
        f"{len(held_out)} of {run.config.data.n_splits} folds are finished. Their held-out log "
        f"loss is between {min(losses):.3f} and {max(losses):.3f}.",
        [
            Panel(
                "training",
                lambda: figures.draw_learning(histories, held_out),
                "Training loss by the number of training rows, and held-out log loss, by fold.",
            )
        ],
        "Lines: training loss, per step (faint) and smoothed. Markers on the right: log loss of "
        "the held-out rows with 95 % intervals.",
        pd.DataFrame(shown),
    )


def build_errors(data: ReportData) -> Section | Omission:
    """Show the pairs with the highest log loss."""
    title = "Costliest errors"
    if data.pairs is None:
        return Omission(title, NEEDS_TEXTS)
    worst = tables.costliest_errors(data.oof, N_CASES)
    texts = data.pairs.set_index("id")
    cases = [
        _build_case(rank, row, texts.loc[row["id"]])
        for rank, row in enumerate(worst.to_dict("records"), 1)
    ]
    share = worst["log_loss"].sum() / (len(data.oof) * data.scores.scores.log_loss.value)
    return Section(
        "errors",
        title,
        f"These {len(cases)} of {len(data.oof):,} pairs make up {share:.1%} of the total log loss. "
        "Check whether the label or the model is wrong.",
        cases=cases,
    )


def show_turns(turns: list[str | None]) -> list[str | None]:
    """Shorten the turns of a prompt or response to `MAX_CHARACTERS` together."""
    shown = turns[:_MAX_TURNS]
    limit = MAX_CHARACTERS // max(1, len(shown))
    texts = [None if turn is None else excerpt(turn, limit) for turn in shown]
    n_more = len(turns) - len(shown)
    return [*texts, f"[… {n_more:,} more turns left out …]"] if n_more else texts


def _describe_losses(losses: pd.DataFrame) -> str:
    shown = (
        f"{name} {value:.3f}" for name, value in zip(losses["name"], losses["value"], strict=True)
    )
    return f"Log loss: {', '.join(shown)}."


def _reliability_panel(table: pd.DataFrame, outcome: str) -> Panel:
    points = table[table["outcome"] == outcome]
    gap = (points["value"] - points["predicted"]).abs().max()
    return Panel(
        f"calibration-{outcome.lower()}",
        lambda: figures.draw_reliability(table, outcome),
        f"Reliability diagram of {outcome}: the share of pairs with this outcome differs from the "
        f"predicted probability by at most {gap:.3f} in {len(points)} bins.",
    )


def _tile(metric: str, interval: Interval) -> tuple[str, str, str]:
    value, bracket, ends = format(interval, ".1%" if metric in SHARES else ".3f").partition(" [")
    explanation = f"[{ends} · {_MEANINGS[metric]}" if bracket else _MEANINGS[metric]
    return SCORE_NAMES[metric], value, explanation


def _compare_with_references(scores: RunScores) -> str:
    sentences = []
    for name in (BASELINE, "length_only", "class_prior"):
        if name in scores.differences:
            gain = negate(scores.differences[name]["log_loss"])
            verb = "Better" if gain.low > 0 else "Not significantly better"
            sentences.append(f"{verb} than {words_of(name)} by {show(gain)} nats per pair.")
    if "bayes" in scores.differences:
        gap = scores.differences["bayes"]["log_loss"]
        sentences.append(f"{show(gap)} above the Bayes optimum.")
    people = scores.human_agreement
    if people:
        rough = f", only {people.n_groups} prompt groups" if people.n_groups < FEW_GROUPS else ""
        sentences.append(
            f"Agreement of two people on the same pair ({people.n:,} votes{rough}): "
            f"{show(people.agreement, 'share')}."
        )
    return " ".join([*sentences, f"{scores.scores.describe()}."])


def _judge_calibration(data: ReportData) -> str:
    """State whether a calibration helps on prompt groups that it was not fitted on."""
    oof = data.oof
    if oof["group"].nunique() < 2:
        return "A calibration cannot be judged with one prompt group."
    log_probs = np.log(np.clip(tables.probs_of(oof), 1e-12, 1))
    is_symmetric = data.run.config.predict.swap
    verdict = calibrate(oof["label"], log_probs, groups=oof["group"], symmetric=is_symmetric)
    best = min(verdict.differences, key=lambda method: verdict.differences[method].value)
    change = f"changes the log loss by {show(verdict.differences[best])}; negative is better."
    if verdict.is_worth_it:
        return f"Calibration by {verdict.adopted.method} {change}"
    return f"No calibration is clearly better; the best of three methods {change}"


def _choose_slices(slices: Slices) -> tuple[list[SliceScores], list[str]]:
    """Return the slices to show, and notes on those that are left out."""
    notes = [f"Not sliced by {family}: {reason}." for family, reason in slices.omitted.items()]
    chosen: list[SliceScores] = []
    for family in dict.fromkeys(row.family for row in slices.rows):
        members = [row for row in slices.rows if row.family == family]
        if len(members) == 1:
            notes.append(f'Not sliced by {family}: all pairs are "{label_text(members[0].slice)}".')
            continue
        largest = sorted(members, key=lambda row: -row.n)[:MAX_SLICES]
        if len(largest) < len(members):
            notes.append(
                f"Showing the {MAX_SLICES} largest of {len(members):,} slices by {family}."
            )
        chosen += [row for row in members if row in largest]
    return chosen, notes


def _name_different(slices: Slices) -> str:
    is_different = slices.to_frame()["is_different"]
    different = [row for row, differs in zip(slices.rows, is_different, strict=True) if differs]
    text = f"{len(different)} of {len(slices.rows)} slices differ significantly from the rest"
    largest: dict[str, SliceScores] = {}
    # Two slices of one attribute differ equally from each other: the smaller one is named.
    for row in sorted(different, key=lambda row: (-round(abs(row.difference.value), 9), row.n)):
        largest.setdefault(row.family, row)
    named = [
        f"{_slice_name(row)} worse by {show(row.difference)}"
        if row.difference.value > 0
        else f"{_slice_name(row)} better by {show(negate(row.difference))}"
        for row in list(largest.values())[:_MAX_NAMED_SLICES]
    ]
    return f"{text}, most of all {'; '.join(named)}." if named else f"{text}."


def _slice_name(row: SliceScores) -> str:
    return f"{row.family}: {label_text(row.slice)}"


def _build_case(rank: int, row: Mapping[Any, Any], texts: pd.Series) -> dict[str, Any]:
    label = tables.OUTCOMES[int(row["label"])]
    probs = {name: float(row[key]) for name, key in zip(tables.OUTCOMES, PROB_COLUMNS, strict=True)}
    models = {side: texts[f"model_{side.lower()}"] for side in "AB"}
    return {
        "rank": rank,
        "id": label_text(row["id"]),
        "log_loss": float(row["log_loss"]),
        "label": label,
        "most_probable": max(probs, key=lambda name: probs[name]),
        "probs": probs,
        "notes": _case_notes(row, texts),
        "prompt": show_turns(texts["prompt"]),
        "responses": [
            {
                "name": side,
                "model": "" if pd.isna(model) else label_text(model),
                "turns": show_turns(texts[f"response_{side.lower()}"]),
                "is_chosen": label == side,
            }
            for side, model in models.items()
        ],
    }


def _case_notes(row: Mapping[Any, Any], texts: pd.Series) -> list[str]:
    notes = [f"fold {int(row['fold'])}"]
    if row.get("is_degenerate"):
        notes.append("responses empty or identical")
    if row.get("n_truncated", 0) > 0:
        notes.append(f"{int(row['n_truncated']):,} tokens truncated")
    if pd.notna(texts["winner"]) and "bad" in str(texts["winner"]):
        notes.append("labelled: both bad")
    if pd.notna(texts["source"]):
        notes.append(f"source {label_text(texts['source'])}")
    return notes
