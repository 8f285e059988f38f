"""The report's sections on what a model might lean on instead of reading."""

from __future__ import annotations

from tiewise.config.run_config import BASELINE
from tiewise.evaluation.intervals import Interval
from tiewise.report import bias_figures, bias_tables
from tiewise.report.sections import (
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


def build_length(material: ReportData) -> Section | Omission:
    """Say whether it is only a length meter."""
    title = "Is it only a length meter?"
    if not {"n_chars_a", "n_chars_b"} <= set(material.folds.columns):
        return Omission(title, "the run's table of folds has no lengths of the responses")
    chosen = {word("length_only"): material.references.get("length_only")}
    references = {name: probs for name, probs in chosen.items() if probs is not None}
    table = bias_tables.length_gap(material.oof, material.folds, references)
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
            "First: lead of A in votes and in predictions by relative length. Second: log loss by "
            "relative length, of the model and of a predictor that sees length only.",
            "First: where votes and model lie together, length is weighed as people weigh it. "
            "Second: where the model lies below length only, it reads more than length.",
            lambda: bias_figures.draw_length_gap(table),
        ),
        tables=[Table("By length of A over length of B", ["A is", "pairs", *names], rows)],
    )


def build_position(material: ReportData) -> Section | Omission:
    """Say whether the order of the responses matters."""
    title = "Does the order of the responses matter?"
    table, measured = bias_tables.both_orders(material.oof), material.scores.position_bias
    if table is None or measured is None:
        is_symmetric = material.run.config.model.backbone == BASELINE
        return Omission(
            title,
            "not for a baseline, which is symmetric by construction"
            if is_symmetric
            else "only one order of the responses was scored",
        )
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
        + (
            "Averaged over both orders, predictions do not depend on it."
            if measured.flip_rate_after.value == 0
            else f"After averaging it still changes {measured.flip_rate_after.value:.1%}."
        ),
        picture=Picture(
            "position",
            f"Scatter of P(A) minus P(B) in both orders: {int(table['is_flipped'].sum()):,} of "
            f"{len(table):,} pairs flip. Mean lead for standing first {measured.bias_before:+.3f}.",
            "First: a dot a pair; on the dashed line the order makes no difference. Second: half "
            "the difference, which is what standing first is worth; the band is the mean's 95 % "
            "interval.",
            lambda: bias_figures.draw_positions(table, measured.bias_before),
        ),
        tables=[Table("Position bias", ["", "one order", "both orders averaged"], rows)],
        is_table_shown=True,
    )


def _length_sentence(material: ReportData) -> str:
    leads = bias_tables.lead_of_longer(material.oof, material.folds)
    sentence = (
        f"The longer response leads by {show(leads['votes'])} in votes and by "
        f"{show(leads['predictions'])} in predictions."
    )
    difference = material.scores.differences.get("length_only")
    if difference is None:
        return f"{sentence} Length only could not be fitted on these folds."
    gain = difference["log_loss"]
    if gain.high < 0:
        return f"{sentence} Beyond length, reading is worth {show(negated(gain))} nats a pair."
    return f"{sentence} The run is not shown to read more than length: {show(gain)} nats a pair."
