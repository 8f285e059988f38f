"""The first screen of a report: what was found, in words."""

from __future__ import annotations

import math
from collections.abc import Callable

from tiewise.config import BASELINE
from tiewise.evaluation.intervals import FEW_GROUPS, few_groups_mark
from tiewise.report.comparisons import better_runs, describe_runs, slice_name
from tiewise.report.content import Finding, ReportData
from tiewise.report.text import label_text, show, show_difference
from tiewise.runs.training_rows import LEAKS, START_LEAKS

_NOT_COUNTED = (
    "Not counted: slices by outcome, of half of the pairs or more, and with fewer than "
    f"{FEW_GROUPS} prompt groups inside or outside."
)


def find_results(data: ReportData) -> list[Finding]:
    """Return the findings of a report, in the order in which to read them."""
    found = (find(data) for find in _FINDERS)
    return [finding for finding in found if finding is not None]


def _find_leaks(data: ReportData) -> Finding | None:
    n = sum(data.scores.counts.get(name, 0) for name in (LEAKS, START_LEAKS))
    if not n:
        return None
    text = (
        f"A teacher or the model that the fit started from was trained on {n:,} of the held-out "
        "pairs."
    )
    return Finding("bad", "The scores are too good", text, "configuration")


def _find_gain(data: ReportData) -> Finding | None:
    """Compare with the reference that sees only lengths, or else with the class frequencies."""
    about = {
        "length_only": "the lengths of the responses alone",
        "class_prior": "the frequencies of the outcomes",
    }
    name = next((name for name in about if name in data.scores.differences), None)
    if name is None:
        return None
    verdict = data.scores.verdict(name)
    title = {
        "better": f"Better than {about[name]}",
        "worse": f"Worse than {about[name]}",
        "no clear difference": f"Not clearly better than {about[name]}",
    }[verdict]
    scores = data.scores
    text = (
        f"Log loss {show(scores.log_loss)}; difference "
        f"{show_difference(data.scores.differences[name]['log_loss'])}. The most probable outcome "
        f"is the label in {show(scores.accuracy, 'accuracy')} of the pairs."
    )
    people = data.scores.human_agreement
    if people and people.n_groups >= FEW_GROUPS:
        text += (
            f" Two people agree on {show(people.agreement, 'share')} of the pairs that both saw."
        )
    rough = few_groups_mark(scores.n_groups).strip()
    return Finding(
        "good" if verdict == "better" else "bad", title, f"{text} {rough}".strip(), "scores"
    )


def _find_calibration(data: ReportData) -> Finding | None:
    error, verdict = data.scores.rms_calibration_error, data.calibration
    if verdict is None:
        return None
    if verdict.is_worth_it:
        change = show_difference(verdict.differences[verdict.adopted.method])
        text = (
            f"Calibration by {verdict.adopted.method} changes the log loss on other prompt groups "
            f"by {change}. Error before it: {show(error)}. To keep the calibration, run tiewise "
            f"evaluate {label_text(data.run.name)} --calibrate."
        )
        return Finding("bad", "Calibration can be improved", text, "calibration")
    text = (
        f"Debiased root mean square error of the predicted probabilities: {show(error)}. No "
        "calibration is clearly better."
    )
    if error.low > 0:
        return Finding("neutral", "Some error of calibration", text, "calibration")
    return Finding("good", "Calibrated, as far as these pairs can show", text, "calibration")


def _find_position_bias(data: ReportData) -> Finding | None:
    bias = data.scores.position_bias
    if bias is None and data.run.config.model.backbone == BASELINE:
        text = "The feature model is symmetric by construction."
        return Finding("good", "No position bias", text, "position")
    if bias is None:
        return None
    lead = show_difference(bias.bias_before)
    text = (
        f"In one order, the first response leads by {lead} in probability, and the order changes "
        f"the most probable outcome of {show(bias.flip_rate_before, 'share')} of the pairs. This "
        "run scores both orders and averages them."
    )
    if not bias.bias_before.excludes_zero:
        return Finding("good", "No clear preference for a position", text, "position")
    first = "first" if bias.bias_before.value > 0 else "second"
    title = f"Prefers the {first} position, before both orders are averaged"
    return Finding("neutral", title, text, "position")


def _find_length_bias(data: ReportData) -> Finding | None:
    if data.leads is None or math.isnan(data.leads["votes"].value):
        return None
    gap = data.leads["difference"]
    title = "Prefers length as people do"
    if gap.excludes_zero:
        title = f"Prefers length {'more' if gap.value > 0 else 'less'} than people do"
    text = (
        f"Lead of the longer response: {show(data.leads['votes'])} in votes, "
        f"{show(data.leads['predictions'])} in predictions; difference {show_difference(gap)}."
    )
    return Finding("neutral" if gap.excludes_zero else "good", title, text, "length")


def _find_worst_slice(data: ReportData) -> Finding | None:
    """Name the worst slice of less than half of the pairs and of enough prompt groups.

    Slices by outcome do not count: the outcome is not known when a pair is judged.
    """
    rows = [row for row in data.slices.rows if row.family != "outcome"]
    if len({row.family for row in rows}) == len(rows):  # no attribute has two slices
        return None
    level = 1 - data.slices.confidence_level
    counted = [row for row in rows if not row.is_rough and 2 * row.n < len(data.oof)]
    worse = [row for row in counted if row.p_holm < level and row.difference.value > 0]
    if not counted:
        text = f"No slice can be judged. {_NOT_COUNTED}"
        return Finding("neutral", "Too few prompt groups for slices", text, "slices")
    if not worse:
        text = f"Of {len(counted)} slices, none is clearly worse than all other pairs."
        return Finding("good", "No weak slice", f"{text} {_NOT_COUNTED}", "slices")
    worst = max(worse, key=lambda row: row.difference.value)
    text = (
        f"Log loss {show(worst.log_loss)} on {worst.n:,} pairs; difference to all other pairs "
        f"{show_difference(worst.difference)}. {len(worse)} of {len(counted)} slices are clearly "
        f"worse than the rest. {_NOT_COUNTED}"
    )
    return Finding("neutral", f"Weakest slice: {slice_name(worst)}", text, "slices")


def _find_better_runs(data: ReportData) -> Finding | None:
    if not data.others:
        return None
    rows = data.differences.overall
    if better_runs(rows):
        return Finding("neutral", "Another run is better", describe_runs(rows), "runs")
    return Finding("good", "No other run is clearly better", describe_runs(rows), "runs")


_FINDERS: tuple[Callable[[ReportData], Finding | None], ...] = (
    _find_leaks,
    _find_gain,
    _find_better_runs,
    _find_calibration,
    _find_position_bias,
    _find_length_bias,
    _find_worst_slice,
)
