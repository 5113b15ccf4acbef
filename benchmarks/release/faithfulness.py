"""How near answers from the redacted text are to the full ones, and what they cost in accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from attnpriv.audit.statistics import bootstrap_ratios
from attnpriv.estimates import percentile_interval
from benchmarks.release.answers import Array, Case
from benchmarks.release.policies import rank_correlation, top_entry

RESAMPLES, SEED, TOP = 1000, 0, 5


def accuracy(cases: Sequence[Case], labels: Sequence[int]) -> dict[str, Any]:
    """Of labels by the whole text and by the redacted one, which are compared text by text."""
    whole = np.array([case.whole.probabilities.argmax() for case in cases])
    redacted = np.array([case.redacted.probabilities.argmax() for case in cases])
    truth = np.array(labels)
    return {
        "documents": len(cases),
        "whole": mean(whole == truth),
        "redacted": mean(redacted == truth),
        "difference": mean((redacted == truth) * 1.0 - (whole == truth)),
        "same_label": mean(whole == redacted),
    }


def faithfulness(cases: Sequence[Case], row: int) -> dict[str, Any]:
    """Of one row of scores: rank correlation and common top of visible tokens, and of all."""
    return {
        "rank_correlation": mean(
            [rank_correlation(each, each.redacted.scores, row) for each in cases]
        ),
        "top_1_visible": mean([_common_top(each, row, 1) for each in cases]),
        "top_5_visible": mean([_common_top(each, row, TOP) for each in cases]),
        "top_1": mean([same_top(each, each.redacted.scores, row) for each in cases]),
    }


def same_top(case: Case, shown: Array, row: int) -> float:
    """Whether scores [S, E] have the full answer's top entry, placeholders included."""
    entries = np.arange(len(case.kinds))
    return float(top_entry(case, shown[row], entries) == top_entry(case, case.merged[row], entries))


def _common_top(case: Case, row: int, size: int) -> float:
    """The share of the top visible tokens by the whole text that are on top by the redacted one."""
    visible = np.flatnonzero(case.content & ~case.hidden)
    if len(visible) < size:
        return float("nan")
    tops = [
        set(visible[np.argsort(-np.abs(scores[row, visible]), kind="stable")[:size]].tolist())
        for scores in (case.merged, case.redacted.scores)
    ]
    return len(tops[0] & tops[1]) / size


def mean(values: Sequence[float] | Array) -> dict[str, float | None]:
    """The mean over texts with its 95 % bootstrap interval; texts without a value are left out."""
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return {"value": None, "low": None, "high": None}
    drawn = bootstrap_ratios(found[:, None], np.ones(len(found)), RESAMPLES, SEED)
    return short(asdict(percentile_interval(float(found.mean()), drawn[:, 0])))


def short(estimate: Mapping[str, float | None]) -> dict[str, float | None]:
    """With four decimals."""
    return {name: None if value is None else round(value, 4) for name, value in estimate.items()}
