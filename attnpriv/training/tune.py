"""Search over hyper-parameters under one ε: several runs, of which the best alone is released.

The search and its price are those of ``attnpriv.privacy.selection`` (Papernot and Steinke 2021,
arXiv:2110.03620): a secret random number of runs, each with a candidate drawn at random, fresh
noise and a noised score on validation rows.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnpriv.config import AttentionConfig, Pooling, PrivacyConfig, RunDistribution
from attnpriv.data.records import Dataset
from attnpriv.data.splits import CONTENT, split_both
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.lora import merge_adapters
from attnpriv.privacy.ledger import Ledger, NoisedSteps, Selection
from attnpriv.privacy.selection import RunCount, noise_for_selection
from attnpriv.randomness import KEY_BYTES, StepKeys, Stream
from attnpriv.runs.card_builder import NOT_COVERED_BY_SEARCH, build_card
from attnpriv.runs.folder import publish
from attnpriv.training.candidates import Candidate
from attnpriv.training.checkpoint import open_training_folder
from attnpriv.training.loop import Schedule, Training, run
from attnpriv.training.preparation import (
    Classifier,
    build_classifier,
    check_classes,
    check_delta,
    make_optimizer,
    make_records,
    make_schedule,
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
    attention: AttentionConfig,
    candidates: Sequence[Candidate],
    privacy: PrivacyConfig,
    mean_runs: float = 10.0,
    distribution: RunDistribution = "poisson",
    validation_share: float = 0.2,
    salt: str = SALT,
    pooling: Pooling = "layers",
    share_layers: bool = False,
    on_step: OnRunStep | None = None,
) -> TrainingResult:
    """Train with several candidates, and write the run folder of the best run.

    Args:
        dataset: labelled texts.
        out: the run folder to make.
        encoder: ``scratch``, ``minilm`` or a folder in Hugging Face layout.
        attention: hardening of every layer.
        candidates: what a run may be; each is as likely, so that one that is named twice is twice
            as likely. Their steps and batch sizes are filled in as ``train`` does, and they have
            one seed.
        privacy: the target of the whole search, and what the candidates have in common. Its
            accountant is not used: a search is accounted for in Rényi DP. A noise seed makes all of
            the search repeatable, and the model not a private one.
        mean_runs: expected number of runs.
        distribution: of the number of runs; see ``selection.RunCount``.
        validation_share: about this share of the rows is scored on, and the rest is trained on.
        salt: of the hash that tells them apart; public, fixed before anyone looks at the data.
        pooling: how token vectors become one text vector.
        share_layers: the layers of an encoder from scratch apply one block.
        on_step: called with (step, steps) of the run under way, after each of its steps.

    Returns:
        The best run. Where the number of runs is drawn as 0, it is the untrained model of the first
        candidate, and the card says so.

    Raises:
        InputError: the data, the target, a candidate or an option cannot be used, or several
            processes were started. No file is left then.

    Claim: the weights, the settings and the noised score are (ε, δ)-differentially private with
    respect to adding or removing one record, trained on or validated on, ε as on the card.

    Conditions: the candidates, the share and the salt were fixed without a look at the data. A
    search is only ever stopped for reasons that have nothing to do with the data or with the number
    of runs: to stop the long ones and start again would draw that number from another distribution.

    Not covered: what the card and the ledger list under ``not_covered``, such as the exact
    accuracy on the validation rows; who looks at ``on_step``, a clock or the machine's load, and so
    learns the number of runs; any search that adapts, which this one does not: no run learns from
    another, and none is stopped early.

    Whatever ends the search early, KeyboardInterrupt included, leaves no file. Nothing was released
    then and nothing spent, so that the search can start again from nothing; there is no resuming.
    (A process that is killed leaves an empty work folder, which the next command takes over.) The
    run folder is written when all runs are over, and the times of its files tell nothing of them.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise InputError(f"expected a search in one process, got {processes} of them")
    seed = _check(candidates, privacy)
    with (
        writing_is_possible(out, "the search released nothing"),
        open_training_folder(out, {}, resume=False) as work,
    ):
        with seeded(seed):
            labels = len(dataset.label_names)
            untrained = build_classifier(encoder, attention, pooling, share_layers, labels)
        runs = RunCount(float(mean_runs), distribution)
        search = _plan(dataset, untrained, candidates, privacy, runs, validation_share, salt)
        _try_each(search)
        best = _best_run(search, on_step)
        card, config = _card(search, best, out.name), search.candidates[best.number].config
        try:
            Ledger(work.ledger).record_selection(search.selection, privacy.delta, card["epsilon"])
            write_release(work.run, best.classifier, config, card)
            publish(work.run, out)
        except BaseException:
            shutil.rmtree(work.run, ignore_errors=True)  # not released, so its ledger owes nothing
            raise
    return TrainingResult(out, card, best.skipped_records)


@dataclass(frozen=True)
class _Search:
    """All that is decided before the number of runs is drawn."""

    dataset: Dataset
    rule: dict[str, Any]
    rows: Dataset
    held_out: Dataset
    candidates: tuple[Candidate, ...]
    privacy: PrivacyConfig
    selection: Selection
    untrained: Classifier

    @cached_property
    def encodings(self) -> list[Encoding]:
        """The training rows, tokenised."""
        return self.untrained.encode(self.rows.texts)

    @cached_property
    def held_out_encodings(self) -> list[Encoding]:
        """The validation rows, tokenised."""
        return self.untrained.encode(self.held_out.texts)

    @cached_property
    def features(self) -> Tensor:
        """What the untrained encoder makes of the training rows, once for all runs of a head."""
        return self.untrained.features(self.encodings)

    @cached_property
    def held_out_features(self) -> Tensor:
        """The same of the validation rows."""
        return self.untrained.features(self.held_out_encodings)

    def count_correct(self, number: int, classifier: Classifier) -> int:
        """How many validation rows a classifier of that candidate gets right: no ε covers it."""
        if self.candidates[number].config.trainable == "head":
            features = self.held_out_features
        else:
            features = classifier.features(self.held_out_encodings)
        return count_correct(classifier.model, features, self.held_out.labels)


@dataclass(frozen=True)
class _Run:
    """One run, or none: the untrained model, without a score.

    Attributes:
        number: of its candidate.
        classifier: what was trained.
        score: how many validation rows it predicts correctly, with noise.
        skipped_records: as in ``TrainingResult``.
    """

    number: int
    classifier: Classifier
    score: float | None = None
    skipped_records: int = 0


def _check(candidates: Sequence[Candidate], privacy: PrivacyConfig) -> int:
    """The seed of all candidates."""
    seeds = {candidate.config.seed for candidate in candidates}
    if len(seeds) != 1:
        raise InputError(f"expected candidates with one seed, got {len(seeds)} seeds")
    if privacy.noise_multiplier is not None:
        raise InputError(
            "expected no noise_multiplier, as a search finds one for each candidate, "
            f"got {privacy.noise_multiplier}"
        )
    return seeds.pop()


def _plan(
    dataset: Dataset,
    untrained: Classifier,
    candidates: Sequence[Candidate],
    privacy: PrivacyConfig,
    runs: RunCount,
    validation_share: float,
    salt: str,
) -> _Search:
    rule = {"rule": CONTENT, "validation_share": validation_share, "salt": salt}
    rows, held_out = map(dataset.subset, split_both(dataset.texts, rule))
    check_classes(rows)
    check_delta(privacy.delta, len(dataset), "rows")
    schedules = [make_schedule(candidate.config, len(rows)) for candidate in candidates]
    noise = noise_for_selection(
        privacy.epsilon, privacy.delta, runs, [(s.sample_rate, s.steps) for s in schedules]
    )
    spent = [
        NoisedSteps(sigma, schedule.sample_rate, schedule.steps, c.privacy(privacy).max_grad_norm)
        for sigma, schedule, c in zip(noise.noise_multipliers, schedules, candidates, strict=True)
    ]
    selection = Selection(
        distribution=runs.distribution,
        mean_runs=runs.mean,
        candidates=tuple(spent),
        score_noise=noise.score_noise,
        validation_share=validation_share,
        salt=salt,
    )
    return _Search(
        dataset=dataset,
        rule=rule,
        rows=rows,
        held_out=held_out,
        candidates=tuple(
            _filled_in(candidate, schedule, 1 - validation_share)
            for candidate, schedule in zip(candidates, schedules, strict=True)
        ),
        privacy=replace(privacy, accountant="rdp"),
        selection=selection,
        untrained=untrained,
    )


def _filled_in(candidate: Candidate, schedule: Schedule, train_size: float) -> Candidate:
    """The candidate with all that follows from the rows."""
    config = replace(
        candidate.config,
        steps=schedule.steps,
        batch_size=schedule.batch_size,
        train_size=train_size,
    )
    return replace(candidate, config=config)


def _try_each(search: _Search) -> None:
    """Raise InputError now for what cannot be trained, rather than in a run that may come late."""
    tried = set()
    for number, candidate in enumerate(search.candidates):
        trainable = candidate.config.trainable
        if trainable not in tried:
            tried.add(trainable)
            _begin(search, number, StepKeys.from_seed(0))


def _begin(search: _Search, number: int, keys: StepKeys) -> tuple[Training, Classifier]:
    """A run of a candidate before its first step."""
    candidate = search.candidates[number]
    config = candidate.config
    classifier = replace(search.untrained, model=copy.deepcopy(search.untrained.model))
    with seeded(config.seed):
        classifier.model.select_trainable(config.trainable)
    features = search.features if config.trainable == "head" else None
    labels = torch.tensor(search.rows.labels)
    training = Training(
        make_records(classifier, search.encodings, labels, config, features),
        make_optimizer(classifier.model, config),
        make_schedule(config, len(search.rows)),
        config,
        privacy=candidate.privacy(search.privacy),
        noise_multiplier=search.selection.candidates[number].noise_multiplier,
        keys=keys,
        processes=Processes(),
    )
    return training, classifier


def _best_run(search: _Search, on_step: OnRunStep | None) -> _Run:
    """Make a random number of runs; the best of them, or the untrained model where it is 0.

    The others, and what they scored, are forgotten as soon as they are beaten. Of runs that score
    the same the first one is the best, and all orders of the runs are as likely.
    """
    seed = search.privacy.noise_seed
    source = random.SystemRandom() if seed is None else random.Random(seed)
    runs = RunCount(search.selection.mean_runs, search.selection.distribution).draw(source)
    best = _Run(0, search.untrained)
    for _ in range(runs):
        this = _run(search, source, on_step)
        if best.score is None or (this.score is not None and this.score > best.score):
            best = this
    return best


def _run(search: _Search, source: random.Random, on_step: OnRunStep | None) -> _Run:
    """One run with a candidate and keys from the source, and its noised score."""
    number = source.randrange(len(search.candidates))
    training, classifier = _begin(search, number, StepKeys(source.randbytes(KEY_BYTES)))
    steps = training.schedule.steps

    def report(step: int) -> None:
        if on_step is not None:
            on_step(step, steps)

    run(training, on_step=report)
    training.finish()
    merge_adapters(classifier.model)
    score = torch.tensor([float(search.count_correct(number, classifier))])
    Stream(source.randbytes(KEY_BYTES)).add_normal_(score, search.selection.score_noise)
    return _Run(number, classifier, score.item(), training.skipped_records)


def _card(search: _Search, best: _Run, name: str) -> dict[str, Any]:
    model, rows = best.classifier.model, len(search.held_out)
    correct = search.count_correct(best.number, best.classifier)
    candidate, spent = search.candidates[best.number], search.selection.candidates[best.number]
    return build_card(
        name=name,
        model=model.config,
        temperatures=model.temperatures(),
        label_names=search.dataset.label_names,
        config=candidate.config,
        privacy=candidate.privacy(search.privacy),
        spent=spent if best.score is not None else replace(spent, steps=0),
        data={
            "name": search.dataset.name,
            "rows_train": len(search.rows),
            "fingerprint": search.dataset.fingerprint(),
            "split": search.rule,
        },
        held_out={"rows": rows, "accuracy": correct / rows},
        not_covered=(*NOT_COVERED_BY_SEARCH, *search.dataset.data_dependent),
        selection=search.selection,
        score=best.score,
    )
