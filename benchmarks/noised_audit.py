"""Does the noise of ``attnpriv audit --epsilon`` change what the report says?

Two models are trained as in ``make demo``, and audited once. The exact sums are then noised
many times over, and each draw's findings are compared with those that the same sums give without
noise. Every draw would cost an ε of its own if it were shown: figures that many draws stand behind
are for this measurement on invented messages only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.noised import NoisedFigure
from attnpriv.audit.noising import Audited, exact_sums
from attnpriv.audit.subject import AuditOptions
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.jobs import ProcessPool
from attnpriv.release.sums import Price, plan
from attnpriv.report.chapters import QUESTIONS
from attnpriv.report.noised.document import make_result
from attnpriv.report.noised.findings import noised_findings
from attnpriv.runs.folder import Run, load_run
from attnpriv.training import train

MODELS = {"plain": ("minilm", None), "private": ("minilm-bounded", 3.0)}
Titles = dict[str, str]
Figures = Mapping[str, NoisedFigure]


def main() -> None:
    """Audit once, draw often, and print how many draws changed a finding."""
    options = _options()
    data = load_dataset(options.data)
    runs = [_trained(name, data, options.runs) for name in MODELS]
    audited = Audited.of(runs, data, AuditOptions(documents=options.documents))
    made = plan(
        [each for layout in audited.layouts for each in layout.sums()],
        options.epsilon,
        audited.layouts[0].held_out ** -1.1,
    )
    started = time.monotonic()
    exact = exact_sums(audited, data, None, _say, executor=ProcessPool(options.processes))
    seconds = time.monotonic() - started
    silent = replace(made, prices=(Price(1, 1),) * len(made.sums))
    without = [layout.figures(silent, exact) for layout in audited.layouts]
    expected = [_titles(*each) for each in zip(runs, audited.layouts, without, strict=True)]
    changed: Counter[str] = Counter()
    for _ in range(options.draws):
        noised = made.add(exact)
        for run, layout, wanted in zip(runs, audited.layouts, expected, strict=True):
            found = _titles(run, layout, layout.figures(made, noised))
            changed.update(f"{run.name}: {name}" for name in wanted if found[name] != wanted[name])
    deviations = [layout.figures(made, made.add(exact)) for layout in audited.layouts]
    print(
        json.dumps(
            {
                "benchmark": "noised_audit",
                "data": options.data,
                "epsilon": options.epsilon,
                "draws": options.draws,
                "seconds": round(seconds, 1),
                "records": [(each.held_out, each.groups) for each in audited.layouts],
                "findings": dict(zip(MODELS, expected, strict=True)),
                "draws_that_changed": dict(changed),
                "noise": [_noise(each) for each in deviations],
                "exact": [_values(each) for each in without],
            },
            ensure_ascii=False,
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.noised_audit")
    parser.add_argument("--data", default="tickets:rows=6000", help="(%(default)s)")
    parser.add_argument("--documents", type=int, default=1200, help="held out (%(default)s)")
    parser.add_argument("--epsilon", type=float, default=1.0, help="of a report (%(default)s)")
    parser.add_argument("--draws", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("build/noised_audit"), help="kept there")
    return parser.parse_args()


def _trained(name: str, data: Dataset, folder: Path) -> Run:
    path = folder / name
    if not path.exists():
        _say(f"training {name}", 0, 1)
        encoder, epsilon = MODELS[name]
        privacy = None if epsilon is None else PrivacyConfig(epsilon)
        train(data, path, encoder=encoder, config=TrainConfig(), privacy=privacy)
    return load_run(path)


def _titles(run: Run, layout: Any, figures: Figures) -> Titles:
    """The findings of a run, by question."""
    attention = run.model.config.attention
    clip = None if attention.clip is None else attention.logit_bound
    result = make_result(
        run.name,
        run.card.as_written,
        "tickets",
        (layout.held_out, layout.groups),
        {path: each.estimate for path, each in figures.items()},
        (clip, attention.smallest_temperature),
        claim_of(run),
        None,
    )
    titles = [finding.title for finding in noised_findings(result)]
    return dict(zip(QUESTIONS, titles, strict=True))


def _noise(figures: Figures) -> dict[str, float | None]:
    return {path: each.noise for path, each in figures.items()}


def _values(figures: Figures) -> dict[str, Sequence[float | None]]:
    found = {path: each.estimate for path, each in figures.items()}
    return {path: (each.value, each.low, each.high) for path, each in found.items()}


def _say(stage: str, done: int, total: int) -> None:
    if done in (0, total):
        print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
