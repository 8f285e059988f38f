"""The report's sections that figures carry: each a sentence, a figure, and the numbers behind it.

A builder takes the run's :class:`Material` and returns a :class:`Section`, or an :class:`Omission`
that names the reason: nothing is left out in silence.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiewise import bias_figures, diagnostics, figures
from tiewise.intervals import Interval
from tiewise.metrics import log_losses
from tiewise.references import RunScores
from tiewise.sections import (
    SCORE_MEANINGS,
    SCORE_NAMES,
    SHARES,
    Material,
    Omission,
    Picture,
    Section,
    Table,
    show,
    word,
)

_ENDS = ("value", "low", "high")


def build_headline(material: Material) -> Section:
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
            lambda is_narrow: figures.draw_headline(table, is_narrow=is_narrow),
        ),
        tables=[Table("Every score, with its 95 % interval", ["score", *predictors], rows)],
        is_table_shown=True,
    )


def build_calibration(material: Material) -> Section:
    """Say whether probabilities mean what they say."""
    table = diagnostics.reliability(material.oof)
    rows = [
        [f"{line['outcome']}, bin {line['bin'] + 1}", f"{line['n']:,}", f"{line['predicted']:.3f}",
         show(Interval(*(line[end] for end in _ENDS)))]
        for line in table.to_dict("records")
    ]  # fmt: skip
    gap = (table["value"] - table["predicted"]).abs().max()
    return Section(
        "calibration",
        "Do the probabilities mean what they say?",
        f"Calibration error {show(material.scores.scores.ece)}. The widest gap of any bin between "
        f"what was foretold and what happened is {gap:.3f}.",
        picture=Picture(
            "reliability",
            f"Three reliability diagrams, for A, B and tie; the widest gap is {gap:.3f}.",
            "Pairs in bins of equal size by the probability foretold, against the share of them "
            "that came out so, with 95 % intervals. On the dashed line, 0.3 means 3 in 10.",
            lambda is_narrow: figures.draw_reliability(table, is_narrow=is_narrow),
        ),
        tables=[
            Table("Bins of the reliability diagrams", ["bin", "pairs", "foretold", "share"], rows)
        ],
    )


def build_confusion(material: Material) -> Section:
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
            lambda is_narrow: figures.draw_confusion(table, is_narrow=is_narrow),
        ),
        tables=[Table("Pairs, by the vote and the likeliest outcome", ["vote", *table], rows)],
    )  # fmt: skip


def build_length(material: Material) -> Section | Omission:
    """Say whether it is only a length meter."""
    title = "Is it only a length meter?"
    if not {"n_chars_a", "n_chars_b"} <= set(material.folds.columns):
        return Omission(title, "the run's table of folds has no lengths of the responses")
    chosen = {word("length_only"): material.references.get("length_only")}
    references = {name: probs for name, probs in chosen.items() if probs is not None}
    table = diagnostics.length_gap(material.oof, material.folds, references)
    wide = table.pivot(index="bin", columns="quantity")
    names = list(table["quantity"].unique())
    rows = [
        [f"{2 ** line['ratio'].iloc[0]:.2f} times as long", f"{line['n'].iloc[0]:,}",
         *(show(Interval(*(line[end][name] for end in _ENDS))) for name in names)]
        for _, line in wide.iterrows()
    ]  # fmt: skip
    return Section(
        "length",
        title,
        _length_sentence(material),
        picture=Picture(
            "length",
            "Left: lead of A in votes and in predictions by relative length. Right: log loss by "
            "relative length, of the model and of a predictor that sees length only.",
            "Left: where votes and model lie together, length is weighed as people weigh it. "
            "Right: where the model lies below length only, it reads more than length.",
            lambda is_narrow: bias_figures.draw_length_gap(table, is_narrow=is_narrow),
        ),
        tables=[Table("By length of A over length of B", ["A is", "pairs", *names], rows)],
    )


def build_learning(material: Material) -> Section | Omission:
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
            lambda is_narrow: figures.draw_learning(histories, held_out, is_narrow=is_narrow),
        ),
        tables=[Table("The fit of each fold", columns, rows)],
    )


def build_position(material: Material) -> Section | Omission:
    """Say whether the order of the responses matters."""
    title = "Does the order of the responses matter?"
    table, measured = diagnostics.both_orders(material.oof), material.scores.position_bias
    if table is None or measured is None:
        return Omission(title, "only one order of the responses was scored")
    flips = show(measured.flip_rate_before, "share")
    rows = [
        ["lead for standing first", show(measured.bias_before), show(measured.bias_after)],
        ["likeliest outcome changes with the order",
         flips, show(measured.flip_rate_after, "share")],
    ]  # fmt: skip
    return Section(
        "position",
        title,
        f"Standing first is worth {show(measured.bias_before)} of probability, and the order "
        f"alone changes the likeliest outcome of {flips} of the pairs. "
        f"After averaging both orders it changes that of {measured.flip_rate_after.value:.1%}.",
        picture=Picture(
            "position",
            f"Scatter of P(A) minus P(B) in both orders: {int(table['is_flipped'].sum()):,} of "
            f"{len(table):,} pairs flip. Mean lead for standing first {measured.bias_before:+.3f}.",
            "Left: a dot a pair; on the dashed line the order makes no difference. Right: half the "
            "difference, which is what standing first is worth; the band is the mean's 95 % "
            "interval.",
            lambda is_narrow: bias_figures.draw_positions(
                table, measured.bias_before, is_narrow=is_narrow
            ),
        ),
        tables=[Table("Position bias", ["", "one order", "both orders averaged"], rows)],
        is_table_shown=True,
    )


def _tile(metric: str, interval: Interval) -> tuple[str, str, str]:
    specification = ".1%" if metric in SHARES else ".3f"
    value, _, ends = format(interval, specification).partition(" ")
    return SCORE_NAMES[metric], value, f"{ends} · {SCORE_MEANINGS[metric]}"


def _verdict(scores: RunScores) -> str:
    gains = {name: of["log_loss"] for name, of in scores.differences.items()}
    sentences = [
        f"The run {'beats' if scores.beats(name) else 'is not shown to beat'} {word(name)}: its "
        f"log loss differs by {show(gains[name])} nats a pair."
        for name in ("length_only", "class_prior")
        if name in gains
    ]
    if "bayes" in gains:
        sentences.append(f"It lies {show(gains['bayes'])} above the best there is.")
    return " ".join([*sentences, f"{scores.scores.describe()}."])


def _length_sentence(material: Material) -> str:
    difference = material.scores.differences.get("length_only")
    if difference is None:
        return "A predictor that sees length only could not be fitted on these folds."
    gain = difference["log_loss"]
    verdict = "reads more than length" if gain.high < 0 else "is not shown to read more than length"
    return (
        f"The model {verdict}: its log loss differs from that of a predictor that sees nothing but "
        f"lengths by {show(gain)} nats a pair."
    )


def _loss_by_fold(oof: pd.DataFrame) -> dict[int, Interval]:
    folds, bins = np.unique(oof["fold"], return_inverse=True)
    losses = log_losses(oof["label"].to_numpy(int), diagnostics.probs_of(oof))
    means = diagnostics.bin_means(bins, {"log loss": losses}, oof["group"])
    ends = means[list(_ENDS)].itertuples(index=False)
    return {int(fold): Interval(*end) for fold, end in zip(folds, ends, strict=True)}


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
