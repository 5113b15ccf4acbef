"""Search over hyper-parameters under one ε: several runs, of which the best alone is released.

The search and its price are those of ``attnpriv.privacy.selection`` (Papernot and Steinke 2021,
arXiv:2110.03620): a secret random number of runs, each with a candidate drawn at random, fresh
noise and a noised score on validation rows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attnpriv.config import DETECTOR, AttentionConfig, Pooling, PrivacyConfig, RunDistribution
from attnpriv.data.records import Dataset
from attnpriv.data.splits import CONTENT
from attnpriv.errors import InputError
from attnpriv.jobs import Executor
from attnpriv.privacy.ledger import Ledger, Selection
from attnpriv.privacy.selection import RunCount, noise_for_selection
from attnpriv.randomness import StepKeys
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_builder import NOT_COVERED_BY_SEARCH
from attnpriv.runs.folder import publish
from attnpriv.training.candidates import Candidate
from attnpriv.training.checkpoint import open_training_folder
from attnpriv.training.loop import Schedule
from attnpriv.training.plan import Parts, Plan, check_delta, cut, make_schedule
from attnpriv.training.preparation import (
    Classifier,
    Warn,
    build_classifier,
    check_known,
    seeded,
)
from attnpriv.training.release import (
    TrainingResult,
    write_release,
    writing_is_possible,
)
from attnpriv.training.search import Attempt, OnRunStep, Search, attempts

SALT = "attnpriv"


def tune(
    dataset: Dataset,
    out: Path,
    *,
    encoder: str,
    attention: AttentionConfig | None,
    candidates: Sequence[Candidate],
    privacy: PrivacyConfig,
    mean_runs: float = 10.0,
    distribution: RunDistribution = "poisson",
    validation_share: float = 0.2,
    salt: str = SALT,
    pooling: Pooling | None = None,
    share_layers: bool = False,
    normalise: bool = False,
    executor: Executor | None = None,
    on_step: OnRunStep | None = None,
    warn: Warn | None = None,
) -> TrainingResult:
    """Train with several candidates, and write the run folder of the best run.

    Args:
        dataset: labelled texts or images.
        out: the run folder to make.
        encoder: ``scratch``, ``minilm``, ``minilm-bounded`` or a folder in Hugging Face layout.
        attention: as in ``train``.
        candidates: the settings that a run may have. Each run draws one of them, all equally
            likely, so that a candidate named twice is twice as likely. Their steps and batch sizes
            are filled in as in ``train``, and all must have the same seed.
        privacy: the target of the whole search, and what the candidates have in common. Its
            accountant is not used: a search is accounted for in Rényi DP. A noise seed makes the
            whole search repeatable, and the model no longer a private one.
        mean_runs: expected number of runs.
        distribution: of the number of runs; see ``selection.RunCount``.
        validation_share: about this share of the rows is scored on, and the rest is trained on.
        salt: of the hash that decides between the two; public, and chosen before anyone looks at
            the data.
        pooling: as in ``train``.
        share_layers: the layers of an encoder from scratch apply one block.
        normalise: as in ``train``.
        executor: makes the runs; None, this process does, one after another. With a noise seed,
            the run folder is the same byte for byte as of one process with one thread.
        on_step: called with (step, steps) of a run under way, after each of its steps.
        warn: as in ``train``.

    Returns:
        The best run. Where the number of runs is drawn as 0, it is the untrained model of the first
        candidate, and the card says so.

    Raises:
        InputError: the data, the target, a candidate or an option cannot be used, the encoder
            cannot read most of the texts, or several processes were started. No file is left then.

    Claim: the weights, the settings and the noised score are (ε, δ)-differentially private with
    respect to adding or removing one record, trained on or validated on, ε as on the card.

    Conditions: the candidates, the share and the salt were chosen without a look at the data. A
    search is only ever stopped for reasons that have nothing to do with the data or with the number
    of runs: stopping long searches to start again would draw that number from another distribution.

    Not covered: what the card and the ledger list under ``not_covered``, such as the exact
    accuracy on the validation rows; anyone who watches ``on_step``, a clock or the machine's load,
    and so learns the number of runs; and any search that adapts, which this one does not: no run
    learns from another, and none is stopped early. An executor's processes, and the machines of a
    cluster, hold the keys of all runs, their weights and their scores until the search is over.

    Whatever ends the search early, KeyboardInterrupt included, leaves no file. Nothing was released
    then and nothing spent, so the search can start again from the beginning; there is no resuming.
    (A process that is killed leaves an empty work folder, which the next command takes over.) The
    run folder is written when all runs are over, and the times of its files say nothing about them.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise InputError(f"expected a search in one process, got {processes}: do not use torchrun")
    seed = _check(candidates, privacy)
    if dataset.detects or encoder == DETECTOR:
        raise InputError("expected a search for a classifier: attnpriv train makes detectors")
    with (
        writing_is_possible(out, "the search released nothing"),
        open_training_folder(out, {}, resume=False) as work,
    ):
        with seeded(seed):
            shape = (encoder, attention, pooling, share_layers)
            labels, pixels = len(dataset.label_names), dataset.pixels
            untrained = build_classifier(*shape, labels, pixels, normalise)
        runs = RunCount(float(mean_runs), distribution)
        parts = cut(dataset, {"rule": CONTENT, "validation_share": validation_share, "salt": salt})
        search = _plan(parts, untrained, candidates, privacy, runs)
        check_known(untrained, parts.rows, search.samples, warn)
        _try_each(search)
        best = _best_attempt(search, executor, on_step)
        card, config = _card(search, best, out.name), search.plans[best.number].config
        assert card.epsilon is not None  # a search has a mechanism
        try:
            Ledger(work.ledger).record_selection(search.selection, privacy.delta, card.epsilon)
            write_release(work.run, best.plan.classifier, config, card)
            publish(work.run, out)
        except BaseException:
            shutil.rmtree(work.run, ignore_errors=True)  # not released, so its ledger owes nothing
            raise
    return TrainingResult(out, card, best.skipped_records)


def _check(candidates: Sequence[Candidate], privacy: PrivacyConfig) -> int:
    """The seed of all candidates."""
    seeds = {candidate.config.seed for candidate in candidates}
    if len(seeds) != 1:
        raise InputError(f"expected all candidates to have one seed, got {len(seeds)} seeds")
    if privacy.noise_multiplier is not None:
        raise InputError(
            "expected no noise_multiplier, as a search finds one for each candidate, "
            f"got {privacy.noise_multiplier}"
        )
    return seeds.pop()


def _plan(
    parts: Parts,
    untrained: Classifier,
    candidates: Sequence[Candidate],
    privacy: PrivacyConfig,
    runs: RunCount,
) -> Search:
    check_delta(privacy.delta, len(parts.dataset), "rows")
    schedules = [make_schedule(candidate.config, len(parts.rows)) for candidate in candidates]
    noise = noise_for_selection(
        privacy.epsilon, privacy.delta, runs, [(s.sample_rate, s.steps) for s in schedules]
    )
    common = replace(privacy, accountant="rdp")
    plans = [
        _plan_candidate(parts, untrained, candidate, common, schedule, sigma)
        for candidate, schedule, sigma in zip(
            candidates, schedules, noise.noise_multipliers, strict=True
        )
    ]
    selection = Selection(
        distribution=runs.distribution,
        mean_runs=runs.mean,
        candidates=tuple(spent for plan in plans if (spent := plan.spent(plan.schedule.steps))),
        score_noise=noise.score_noise,
        validation_share=parts.rule["validation_share"],
        salt=parts.rule["salt"],
    )
    return Search(tuple(plans), selection, privacy.noise_seed)


def _plan_candidate(
    parts: Parts,
    untrained: Classifier,
    candidate: Candidate,
    common: PrivacyConfig,
    schedule: Schedule,
    noise_multiplier: float,
) -> Plan:
    config = replace(
        candidate.config,
        steps=schedule.steps,
        batch_size=schedule.batch_size,
        train_size=1 - parts.rule["validation_share"],
    )
    return Plan(parts, config, candidate.privacy(common), schedule, noise_multiplier, untrained)


def _try_each(search: Search) -> None:
    """Raise InputError now for what cannot be trained, rather than in a run that may come late."""
    tried = set()
    for plan in search.plans:
        if plan.config.trainable not in tried:
            tried.add(plan.config.trainable)
            search.begin(plan.with_own_model(), StepKeys.from_seed(0))


def _best_attempt(search: Search, executor: Executor | None, on_step: OnRunStep | None) -> Attempt:
    """Make a random number of runs; the best of them, or the untrained model where it is 0.

    The others, and what they scored, are forgotten as soon as they are beaten. Of runs that score
    the same the first one drawn is the best, and all orders of the runs are as likely.
    """
    made = attempts(search, executor, on_step)
    best = max(made, key=lambda each: (each[1].score, -each[0].place), default=None)
    return Attempt(0, search.plans[0]) if best is None else best[1]


def _card(search: Search, best: Attempt, name: str) -> ModelCard:
    spent = search.selection.candidates[best.number]
    return best.plan.card(
        name,
        search.count_correct(best.plan),
        spent if best.score is not None else replace(spent, steps=0),
        NOT_COVERED_BY_SEARCH,
        selection=search.selection,
        score=best.score,
    )
