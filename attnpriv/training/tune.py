"""Search over hyper-parameters under one ε: several runs, of which the best alone is released.

The search and its price are those of ``attnpriv.privacy.selection`` (Papernot and Steinke 2021,
arXiv:2110.03620): a secret random number of runs, each with a candidate drawn at random, fresh
noise and a noised score on validation rows.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from attnpriv.config import AttentionConfig, Pooling, PrivacyConfig, RunDistribution
from attnpriv.data.records import Dataset
from attnpriv.data.splits import CONTENT
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.models.lora import merge_adapters
from attnpriv.privacy.ledger import Ledger, Selection
from attnpriv.privacy.selection import RunCount, noise_for_selection
from attnpriv.randomness import KEY_BYTES, StepKeys, Stream
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_builder import NOT_COVERED_BY_SEARCH
from attnpriv.runs.folder import publish
from attnpriv.training.candidates import Candidate
from attnpriv.training.checkpoint import open_training_folder
from attnpriv.training.loop import Schedule, Training, run
from attnpriv.training.plan import Parts, Plan, check_delta, cut, make_schedule
from attnpriv.training.preparation import (
    Classifier,
    Warn,
    augmented,
    build_classifier,
    check_known,
    seeded,
)
from attnpriv.training.processes import Processes
from attnpriv.training.release import (
    TrainingResult,
    count_correct,
    write_release,
    writing_is_possible,
)

SALT = "attnpriv"
OnRunStep = Callable[[int, int], None]


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
        on_step: called with (step, steps) of the run under way, after each of its steps.
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
    learns from another, and none is stopped early.

    Whatever ends the search early, KeyboardInterrupt included, leaves no file. Nothing was released
    then and nothing spent, so the search can start again from the beginning; there is no resuming.
    (A process that is killed leaves an empty work folder, which the next command takes over.) The
    run folder is written when all runs are over, and the times of its files say nothing about them.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise InputError(f"expected a search in one process, got {processes}: do not use torchrun")
    seed = _check(candidates, privacy)
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
        best = _best_run(search, on_step)
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


@dataclass(frozen=True)
class _Search:
    """All that is decided before the number of runs is drawn.

    Attributes:
        plans: one for each candidate, on the same rows; their untrained models are one.
        selection: what the whole of it spends.
        noise_seed: as in ``PrivacyConfig``.
    """

    plans: tuple[Plan, ...]
    selection: Selection
    noise_seed: int | None

    @property
    def parts(self) -> Parts:
        """The rows to train on and the validation rows."""
        return self.plans[0].parts

    @property
    def untrained(self) -> Classifier:
        """The model that all runs begin with."""
        return self.plans[0].classifier

    @cached_property
    def samples(self) -> list[Sample]:
        """What the model reads of the training rows."""
        return self.untrained.read(self.parts.rows)

    @cached_property
    def held_out_samples(self) -> list[Sample]:
        """The same of the validation rows."""
        return self.untrained.read(self.parts.held_out)

    @cached_property
    def features(self) -> Tensor:
        """What the untrained encoder makes of the training rows, once for all runs of a head."""
        return self.untrained.features(
            augmented(self.untrained, self.samples, self.plans[0].config)
        )

    @cached_property
    def held_out_features(self) -> Tensor:
        """The same of the validation rows."""
        return self.untrained.features(self.held_out_samples)

    def begin(self, plan: Plan, keys: StepKeys) -> Training:
        """A run before its first step."""
        features = self.features if plan.config.trainable == "head" else None
        return plan.begin(self.samples, keys, Processes(), features)

    def count_correct(self, plan: Plan) -> int:
        """How many validation rows a plan's model gets right by now: no ε covers it."""
        if plan.config.trainable == "head":
            features = self.held_out_features
        else:
            features = plan.classifier.features(self.held_out_samples)
        return count_correct(plan.classifier.model, features, self.parts.held_out.labels)


@dataclass(frozen=True)
class _Run:
    """One run, or none: the untrained model, without a score.

    Attributes:
        number: of its candidate.
        plan: what was planned; its model is the trained one.
        score: how many validation rows it predicts correctly, with noise.
        skipped_records: as in ``TrainingResult``.
    """

    number: int
    plan: Plan
    score: float | None = None
    skipped_records: int = 0


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
) -> _Search:
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
    return _Search(tuple(plans), selection, privacy.noise_seed)


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


def _try_each(search: _Search) -> None:
    """Raise InputError now for what cannot be trained, rather than in a run that may come late."""
    tried = set()
    for plan in search.plans:
        if plan.config.trainable not in tried:
            tried.add(plan.config.trainable)
            search.begin(plan.with_own_model(), StepKeys.from_seed(0))


def _best_run(search: _Search, on_step: OnRunStep | None) -> _Run:
    """Make a random number of runs; the best of them, or the untrained model where it is 0.

    The others, and what they scored, are forgotten as soon as they are beaten. Of runs that score
    the same the first one is the best, and all orders of the runs are as likely.
    """
    seed = search.noise_seed
    source = random.SystemRandom() if seed is None else random.Random(seed)
    runs = RunCount(search.selection.mean_runs, search.selection.distribution).draw(source)
    best = _Run(0, search.plans[0])
    for _ in range(runs):
        this = _run(search, source, on_step)
        if best.score is None or (this.score is not None and this.score > best.score):
            best = this
    return best


def _run(search: _Search, source: random.Random, on_step: OnRunStep | None) -> _Run:
    """One run with a candidate and keys from the source, and its noised score."""
    number = source.randrange(len(search.plans))
    plan = search.plans[number].with_own_model()
    training = search.begin(plan, StepKeys(source.randbytes(KEY_BYTES)))
    steps = training.schedule.steps

    def report(step: int) -> None:
        if on_step is not None:
            on_step(step, steps)

    run(training, on_step=report)
    training.finish()
    merge_adapters(plan.classifier.model)
    score = torch.tensor([float(search.count_correct(plan))])
    Stream(source.randbytes(KEY_BYTES)).add_normal_(score, search.selection.score_noise)
    return _Run(number, plan, score.item(), training.skipped_records)


def _card(search: _Search, best: _Run, name: str) -> ModelCard:
    spent = search.selection.candidates[best.number]
    return best.plan.card(
        name,
        search.count_correct(best.plan),
        spent if best.score is not None else replace(spent, steps=0),
        NOT_COVERED_BY_SEARCH,
        selection=search.selection,
        score=best.score,
    )
