"""The report's sections that figures carry: each a sentence, a figure, and the numbers behind it.

A builder takes the run's :class:`Material` and returns a :class:`Section`, or an :class:`Omission`
that names the reason: nothing is left out in silence.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiewise.evaluation.agreement import HumanAgreement
from tiewise.evaluation.calibration import calibrate
from tiewise.evaluation.intervals import FEW_GROUPS, Interval
from tiewise.evaluation.metrics import log_losses
from tiewise.evaluation.references import RunScores
from tiewise.report import diagnostics, figures
from tiewise.report.sections import (
    SCORE_MEANINGS,
    SCORE_NAMES,
    SHARES,
    Omission,
    Picture,
    ReportData,
    Section,
    Table,
    negated,
    show,
    word,
)

_ENDS = ("value", "low", "high")


def build_headline(material: ReportData) -> Section:
    """Say how good the run is, beside what it must beat."""
    scores, baselines = material.scores.scores, material.scores.baselines
    ranked = sorted(baselines, key=lambda name: (name == "bayes", baselines[name].log_loss.value))
    predictors = {"this run": scores, **{word(name): baselines[name] for name in ranked}}
    lines = [(name, *_ends(of.log_loss), name == "this run") for name, of in predictors.items()]
    table = pd.DataFrame(lines, columns=["name", "value", "low", "high", "is_run"])
    metrics = [name for name in SCORE_NAMES if hasattr(scores, name)]
    rows = [
        [SCORE_NAMES[metric], *(show(getattr(of, metric), metric) for of in predictors.values())]
        for metric in metrics
    ]
    return Section(
        "headline",
        "How good it is",
        _verdict(material.scores),
        tiles=[_tile(metric, getattr(scores, metric)) for metric in metrics[:5]],
        picture=Picture(
            "headline",
            "Log loss: "
            + ", ".join(f"{name} {of.log_loss:.3f}" for name, of in predictors.items()),
            "Log loss with 95 % intervals, resampled by conversation. Hollow: the references, "
            "fitted on the same folds."
            + (
                " Bayes: the true probabilities; nothing can be better."
                if "bayes" in ranked
                else ""
            ),
            lambda: figures.draw_headline(table),
        ),
        tables=[Table("Every score, with its 95 % interval", ["score", *predictors], rows)],
        is_table_shown=True,
    )


def build_calibration(material: ReportData) -> Section:
    """Say whether probabilities mean what they say."""
    table = diagnostics.reliability(material.oof)
    rows = [
        [f"{line['outcome']}, bin {line['bin'] + 1}", f"{line['n']:,}", f"{line['predicted']:.3f}",
         show(Interval(*(line[end] for end in _ENDS)))]
        for line in table.to_dict("records")
    ]  # fmt: skip
    gap = (table["value"] - table["predicted"]).abs().max()
    verdict = _judge_calibration(material)
    return Section(
        "calibration",
        "Do the probabilities mean what they say?",
        f"Calibration error {show(material.scores.scores.ece)}. {verdict}",
        picture=Picture(
            "reliability",
            f"Three reliability diagrams, for A, B and tie; the widest gap is {gap:.3f}.",
            "Pairs in bins of equal size by the probability foretold, against the share of them "
            "that came out so, with 95 % intervals. On the dashed line, 0.3 means 3 in 10.",
            lambda: figures.draw_reliability(table),
        ),
        tables=[
            Table("Bins of the reliability diagrams", ["bin", "pairs", "foretold", "share"], rows)
        ],
    )


def build_confusion(material: ReportData) -> Section:
    """Say what is taken for what."""
    table = diagnostics.confusion(material.oof)
    rows = [[str(name), *(f"{count:,}" for count in line)] for name, line in table.iterrows()]
    recall = np.diag(table) / table.sum(axis=1).clip(lower=1)
    found = ", ".join(f"{name} {share:.0%}" for name, share in recall.items())
    return Section(
        "confusion",
        "What is taken for what",
        f"Of the votes for each outcome, the model held it likeliest in this share: {found}.",
        picture=Picture(
            "confusion",
            "Confusion matrix. " + "; ".join(
                f"people chose {name}: " + ", ".join(f"{other} {n:,}" for other, n in line.items())
                for name, line in table.iterrows()
            ),
            "A row for each outcome people chose; shares add up to 100 % along the row.",
            lambda: figures.draw_confusion(table),
        ),
        tables=[Table("Pairs, by the vote and the likeliest outcome", ["vote", *table], rows)],
    )  # fmt: skip


def build_learning(material: ReportData) -> Section | Omission:
    """Say how the fit went."""
    title = "How the fit went"
    run, oof = material.run, material.oof
    histories = {fold: diagnostics.read_history(run.fold(fold).history_path)
                 for fold in sorted(oof["fold"].unique())}  # fmt: skip
    histories = {fold: history for fold, history in histories.items() if len(history)}
    if not histories:
        return Omission(
            title, "no fold has a history of its steps (a baseline is fitted in one go)"
        )
    held_out = _loss_by_fold(oof)
    losses = [interval.value for interval in held_out.values()]
    rows = [
        [f"fold {fold}", f"{int(history['step'].max()):,}", f"{int(history['rows'].sum()):,}",
         f"{int(history['tokens'].sum()):,}", f"{history['loss'].iloc[-1]:.3f}",
         show(held_out[fold])]
        for fold, history in histories.items()
    ]  # fmt: skip
    columns = ["fold", "steps", "rows", "tokens", "last training loss", "held-out log loss"]
    return Section(
        "learning",
        title,
        f"{len(held_out)} of {run.config.data.n_splits} folds are finished. Their held-out log "
        f"loss lies between {min(losses):.3f} and {max(losses):.3f}.",
        picture=Picture(
            "learning",
            "Training loss by rows seen, a line a fold, and the held-out log loss of each fold.",
            "Lines: loss of the training rows as they came by, faint, and smoothed. Markers on the "
            "right: log loss of the rows held out, with 95 % intervals.",
            lambda: figures.draw_learning(histories, held_out),
        ),
        tables=[Table("The fit of each fold", columns, rows)],
    )


def _tile(metric: str, interval: Interval) -> tuple[str, str, str]:
    specification = ".1%" if metric in SHARES else ".3f"
    value, _, ends = format(interval, specification).partition(" ")
    return SCORE_NAMES[metric], value, f"{ends} · {SCORE_MEANINGS[metric]}"


def _verdict(scores: RunScores) -> str:
    gains = {name: of["log_loss"] for name, of in scores.differences.items()}
    sentences = [
        f"It beats {word(name)} by {show(negated(gains[name]))} nats a pair."
        if scores.beats(name)
        else f"It is not shown to beat {word(name)}: {show(gains[name])} nats a pair."
        for name in ("baseline", "length_only", "class_prior")
        if name in gains
    ]
    if "bayes" in gains:
        sentences.append(f"It lies {show(gains['bayes'])} above the best there is.")
    if scores.human_agreement:
        sentences.append(_say_agreement(scores.human_agreement))
    return " ".join([*sentences, f"{scores.scores.describe()}."])


def _say_agreement(people: HumanAgreement) -> str:
    rough = f", of only {people.n_groups} conversations" if people.n_groups < FEW_GROUPS else ""
    return (
        f"Where several people voted on a pair ({people.n:,} votes{rough}), another person says "
        f"the same in {show(people.agreement, 'share')}."
    )


def _judge_calibration(material: ReportData) -> str:
    """Say whether a calibration, judged on conversations it was not fitted on, would help."""
    oof = material.oof
    if oof["group"].nunique() < 2:
        return "With one conversation nothing can be said of a calibration."
    log_probs = np.log(np.clip(diagnostics.probs_of(oof), 1e-12, 1))
    is_symmetric = material.run.config.predict.swap
    verdict = calibrate(oof["label"], log_probs, groups=oof["group"], symmetric=is_symmetric)
    best = max(verdict.gains, key=lambda method: verdict.gains[method].value)
    gain = f"{show(verdict.gains[best])} nats a pair"
    if verdict.is_worth_it:
        return f"A calibration by {verdict.adopted.method} would gain {gain}."
    return (
        f"Calibrating is not worth it: no way of three is shown to gain anything, at best {gain}."
    )


def _loss_by_fold(oof: pd.DataFrame) -> dict[int, Interval]:
    folds, bins = np.unique(oof["fold"], return_inverse=True)
    losses = log_losses(oof["label"].to_numpy(int), diagnostics.probs_of(oof))
    means = diagnostics.bin_means(bins, {"log loss": losses}, oof["group"])
    ends = means[list(_ENDS)].itertuples(index=False)
    return {int(fold): Interval(*end) for fold, end in zip(folds, ends, strict=True)}


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
