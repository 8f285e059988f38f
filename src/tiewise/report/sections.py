"""Sections of the report on scores, calibration, both biases and training.

A builder takes the :class:`ReportData` and returns a :class:`Section`, or an :class:`Omission` with
the reason. Differences are this run minus the other: a negative difference of log loss is better.
"""

from __future__ import annotations

import pandas as pd

from tiewise.config import BASELINE
from tiewise.evaluation.intervals import FEW_GROUPS, Interval
from tiewise.evaluation.references import RunScores, reference_probs
from tiewise.report import figures, tables
from tiewise.report.content import Omission, Panel, ReportData, Section
from tiewise.report.text import SCORE_NAMES, SHARES, show, show_difference, words_of

_MEANINGS = {
    "log_loss": "nats per pair; lower is better",
    "accuracy": "the most probable outcome is the label",
    "brier": "0 to 2; lower is better",
    "ece": "0 to 1; lower is better",
    "rms_calibration_error": "0 to 1; lower is better; without the bias of noise",
    "decisive_accuracy": "A or B is right, without ties",
}
_SYMMETRIC = (
    "None: the feature model is symmetric by construction. Exchanging the responses exchanges P(A) "
    "and P(B) exactly."
)


def build_scores(data: ReportData) -> Section:
    """Compare the run with the references."""
    scores, references = data.scores, data.scores.baselines
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


def build_confusion(data: ReportData) -> Section:
    """Count pairs by label and most probable outcome."""
    table, recall = tables.confusion(data.oof), tables.recall_by_class(data.oof)
    shown = ", ".join(f"{name} {show(share, 'share')}" for name, share in recall.items())
    text = f"Share of the pairs of each label whose most probable outcome is the label: {shown}."
    return Section(
        "confusion",
        "Confusion matrix",
        text,
        [Panel("confusion", lambda: figures.draw_confusion(table), f"Confusion matrix. {text}")],
        "Rows: labels; columns: the most probable outcome. Shares add up to 100 % per row.",
        tables.to_texts(table.rename_axis("label").reset_index()),
    )


def build_calibration(data: ReportData) -> Section:
    """Compare predicted probabilities with the shares of the outcomes."""
    table, scores = tables.reliability(data.oof), data.scores
    return Section(
        "calibration",
        "Calibration",
        f"Expected calibration error (ECE, L1: mean absolute gap over 15 bins) {show(scores.ece)}; "
        f"debiased root mean square error {show(scores.rms_calibration_error)}. "
        f"{_judge_calibration(data)}",
        [_reliability_panel(table, outcome) for outcome in tables.OUTCOMES],
        "Reliability diagrams: pairs in bins of equal size by predicted probability, and the share "
        "of pairs with that outcome, with 95 % intervals. Dashed: perfect calibration.",
        tables.to_texts(table),
    )


def build_position(data: ReportData) -> Section | Omission:
    """Measure how the order of the responses changes the predictions."""
    title, bias = "Position bias", data.scores.position_bias
    if bias is None and data.run.config.model.backbone == BASELINE:
        return Section("position", title, _SYMMETRIC)
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
        f"Lead of the first response in probability: {show(bias.bias_before)}. The order changes "
        f"the most probable outcome of {flips[0]} of the pairs; after averaging both orders, of "
        f"{flips[1]}.",
        table=pd.DataFrame(shown),
        is_table_open=True,
    )


def build_length(data: ReportData) -> Section | Omission:
    """Relate votes and predictions to the length of the responses."""
    title, leads = "Length bias", data.leads
    if leads is None:
        return Omission(title, "folds.parquet has no lengths of the responses")
    positions = pd.Index(data.folds["id"]).get_indexer(pd.Index(data.oof["id"]))
    references = reference_probs(data.folds, positions)[0]
    known = {words_of(k): v for k, v in references.items() if k == "length_only"}
    table = tables.length_gap(data.oof, data.folds, known)
    text = (
        f"Lead of the longer response (its share of wins minus its share of losses): "
        f"{show(leads['votes'])} in votes, {show(leads['predictions'])} in predictions."
    )
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
            verdict = {"better": "Better than", "worse": "Worse than"}.get(
                scores.verdict(name), "No clear difference from"
            )
            difference = show_difference(scores.differences[name]["log_loss"])
            sentences.append(f"{verdict} {words_of(name)}: log loss {difference}.")
    if "bayes" in scores.differences:
        gap = show_difference(scores.differences["bayes"]["log_loss"])
        sentences.append(f"From the Bayes optimum: log loss {gap}.")
    people = scores.human_agreement
    if people:
        rough = f", only {people.n_groups} prompt groups" if people.n_groups < FEW_GROUPS else ""
        sentences.append(
            f"Agreement of two people on the same pair ({people.n:,} votes{rough}): "
            f"{show(people.agreement, 'share')}."
        )
    return " ".join([*sentences, f"{scores.describe()}."])


def _judge_calibration(data: ReportData) -> str:
    """State whether a calibration helps on prompt groups that it was not fitted on."""
    verdict = data.calibration
    if verdict is None:
        return "A calibration cannot be judged with one prompt group."
    best = min(verdict.differences, key=lambda method: verdict.differences[method].value)
    change = show_difference(verdict.differences[best])
    level = f"{verdict.confidence_level:.1%} interval"
    if verdict.is_worth_it:
        method = verdict.adopted.method
        return f"Calibration by {method} changes the log loss by {change} ({level})."
    return (
        f"No calibration is clearly better: the best of {len(verdict.differences)} methods changes "
        f"the log loss by {change} ({level})."
    )
