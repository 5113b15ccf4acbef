"""Training as a whole: split, build, fit, write the run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from attnpriv.config import DETECTOR, SCRATCH, AttentionConfig, Pooling, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_rows, split_rule, tells_rows_apart
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.models.lora import merge_adapters
from attnpriv.privacy.ledger import Ledger
from attnpriv.randomness import StepKeys
from attnpriv.runs.canaries import canaries_path, write_canaries
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_builder import CUT, NOT_COVERED
from attnpriv.runs.folder import WEIGHTS, Run, publish
from attnpriv.training.canaries import plan_canaries
from attnpriv.training.checkpoint import (
    Checkpoint,
    TrainingFolder,
    open_training_folder,
    require_new,
    training_folder,
)
from attnpriv.training.features import FeatureFolder, Features
from attnpriv.training.loop import Training, run
from attnpriv.training.plan import Plan, cut, plan_training
from attnpriv.training.preparation import Warn, build_classifier, check_known
from attnpriv.training.processes import Processes, join_processes
from attnpriv.training.release import (
    TrainingResult,
    count_correct,
    write_release,
    writing_is_possible,
)
from attnpriv.training.sharding import check_shardable
from attnpriv.training.teacher import check_no_shape, load_teacher, student_of

OnStep = Callable[[int, int, float | None], None]
RESUMABLE = "--resume goes on from the last saved state, where there is one"


def train(
    dataset: Dataset,
    out: Path,
    *,
    attention: AttentionConfig | None = None,
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    encoder: str | None = None,
    pooling: Pooling | None = None,
    share_layers: bool = False,
    normalise: bool = False,
    heads: int | None = None,
    distil_from: Path | None = None,
    canaries: int | None = None,
    features: FeatureFolder | None = None,
    shard: bool = False,
    resume: bool = False,
    on_step: OnStep | None = None,
    warn: Warn | None = None,
) -> TrainingResult:
    """Train a classifier and write its run folder.

    Args:
        dataset: labelled texts or images; ``config.train_size`` of them are trained on.
        out: the run folder to make.
        attention: hardening of every layer. By default, a bounded encoder has the one under which
            it was taught, which nothing may contradict, and any other is not hardened.
        config: how to fit.
        privacy: the target, or None for training without privacy, which the card then says.
        encoder: ``scratch`` (the default), ``minilm``, ``minilm-bounded`` or a folder in Hugging
            Face layout with an encoder of a kind in ``attnpriv.models.layouts``; of images, ``vit``
            (the default).
        pooling: what the head reads; by default ``layers`` of texts and ``places`` of images.
        share_layers: the layers of an encoder from scratch apply one block.
        normalise: texts are brought into one spelling first, here and wherever the run is used.
        heads: queries of encoder ``words``, a divisor of its width; 1 by default.
        distil_from: the run folder of a teacher that was trained on the same rows. The model has
            the teacher's encoder, pooling and sharing, starts with its weights, and learns from it
            besides the labels, as in ``distillation.TaughtRecords``. Without privacy only.
        canaries: how many made-up records to train on besides, each by a fair coin, so that an
            audit can bound ε from below; see ``training.canaries``. What is known of them is
            written beside the run folder, for its owner only (``runs.canaries``).
        features: where trainings of the same data and encoder keep what the encoder makes of it;
            used where the head alone is trained.
        shard: several processes share the model besides the records, and each needs memory for a
            part of it only; see ``training.sharding``.
        resume: go on with the unfinished training of this run folder.
        on_step: called after each step with the step, the number of steps, and an upper bound on
            the ε spent by then.
        warn: called before the first step with a sentence for whoever holds the data, if there is
            anything to warn of; see ``preparation.check_known``.

    Raises:
        InputError: the data, the target or the options cannot be used, the encoder cannot read most
            of the texts, or the unfinished training is another one. Nothing is written then.

    Claim: with ``privacy``, the weights are (ε, δ)-differentially private with respect to adding or
    removing one training record, ε as on the card. Not covered: what the card and the ledger list
    under ``not_covered``. Whatever ends the training early, KeyboardInterrupt included, leaves a
    work folder beside ``out`` whose ledger states at least what was spent; resumed, the training
    ends with the same bits as if it had never stopped.
    """
    require_new(out)
    if dataset.detects or encoder == DETECTOR:
        _check_detection(dataset, encoder, config, canaries, distil_from)
    if canaries is not None and not resume:
        require_new(canaries_path(out), "file of canaries")
    teacher: Run | None = None
    if distil_from is None:
        shape = (encoder or SCRATCH, attention, pooling, share_layers)
        read = (dataset.pixels, normalise, heads)
        build = partial(build_classifier, *shape, len(dataset.label_names), *read)
    else:
        check_no_shape(
            encoder=encoder,
            pooling=pooling,
            share_layers=share_layers or None,
            normalise=normalise or None,
            heads=heads,
        )
        if config.augmentation is not None:
            raise InputError("expected no augmentation with a teacher, who reads whole records")
        teacher = load_teacher(distil_from, dataset, config, privacy)
        build = partial(student_of, teacher, attention or AttentionConfig())
    with join_processes(shard=shard) as processes:
        parts = cut(dataset, split_rule(config.train_size, config.seed))
        plan = plan_training(parts, build, config, privacy, teacher)
        if canaries is not None:
            size = sum(p.numel() for p in plan.classifier.model.parameters() if p.requires_grad)
            planted = plan_canaries(canaries, parts.rows, privacy is not None, size, config.seed)
            plan = replace(plan, canaries=planted)
        if shard:
            check_shardable(
                plan.classifier.model,
                config,
                privacy,
                taught=teacher is not None,
                gradient_canaries=plan.canaries is not None and plan.canaries.gradients > 0,
            )
        samples = plan.classifier.read(parts.rows)
        first = processes.rank == 0
        check_known(plan.classifier, parts.rows, samples, warn if first else None)
        known = None
        if features is not None and config.trainable == "head":
            whole = features.of(plan.classifier.model, plan.classifier.modality, dataset)
            known = Features.cut(whole, split_rows(dataset.keys, parts.rule))
        trained = train_plan(
            plan, out, samples, processes, features=known, resume=resume, on_step=on_step
        )
        processes.wait()  # until there is the run folder
    return trained


def _check_detection(
    dataset: Dataset,
    encoder: str | None,
    config: TrainConfig,
    canaries: int | None,
    distil_from: Path | None,
) -> None:
    """Raise InputError for what a detector cannot be trained on, or with."""
    if not dataset.detects:
        raise InputError(
            f"expected data with objects for {DETECTOR}, such as scenes: {dataset.name}"
        )
    if encoder != DETECTOR:
        raise InputError(
            f"expected model {DETECTOR} for {dataset.name}, got {encoder or SCRATCH!r}"
        )
    if config.augmentation is not None or canaries is not None or distil_from is not None:
        raise InputError(f"expected no augmentation, canaries or teacher with {DETECTOR}")


def train_plan(
    plan: Plan,
    out: Path,
    samples: Sequence[Sample],
    processes: Processes,
    *,
    features: Features | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Take the steps of a plan and write its run folder.

    Args:
        plan: the training; its model is trained in place.
        out: the run folder to make.
        samples: what the classifier reads of the training rows.
        processes: those that train together; only the first of them writes.
        features: what a frozen encoder makes of the rows, where somebody has run it already.
        resume: as in ``train``.
        on_step: as in ``train``.

    Raises:
        InputError: there is a run folder already, or the unfinished training is another one.
    """
    identity = plan.identity()
    with (
        writing_is_possible(out, RESUMABLE),
        open_training_folder(out, identity, resume=resume)
        if processes.rank == 0
        else nullcontext(training_folder(out, identity)) as work,
    ):
        processes.wait()  # until rank 0 has the folder
        training = _begin(plan, samples, work, processes, resume, features)
        _run(plan, training, work, processes, on_step)
        with processes.computing():
            training.finish()
        merge_adapters(plan.classifier.model)
        card = _card(plan, out.name, features)
        if processes.rank == 0:
            write_release(work.run, plan.classifier, plan.config, card)
            if training.canaries is not None:
                weights = hashlib.sha256((work.run / WEIGHTS).read_bytes()).hexdigest()
                write_canaries(out, training.canaries.seen(weights))
            publish(work.run, out)
    return TrainingResult(out, card, training.skipped_records)


def _begin(
    plan: Plan,
    samples: Sequence[Sample],
    work: TrainingFolder,
    processes: Processes,
    resume: bool,
    features: Features | None,
) -> Training:
    """The training before its next step, whether that is its first or not."""
    seed = plan.config.seed if plan.privacy is None else plan.privacy.noise_seed
    keys = StepKeys.from_system() if seed is None else StepKeys.from_seed(seed)
    checkpoint = work.load(processes) if resume else None
    training = plan.begin(
        samples,
        StepKeys(processes.agree_on(keys.key)),
        processes,
        None if features is None or plan.config.augmentation else features.rows,
        canary_key=None if checkpoint is None else checkpoint.canary_key,
    )
    if checkpoint is not None:
        training.load_state(checkpoint.tensors, checkpoint.key, checkpoint.steps_taken)
    return training


def _run(
    plan: Plan,
    training: Training,
    work: TrainingFolder,
    processes: Processes,
    on_step: OnStep | None,
) -> None:
    ledger = Ledger(work.ledger)
    spent_at_most: float | None = None

    def begin_stretch(end: int) -> None:
        nonlocal spent_at_most
        spent_at_most = plan.epsilon(end)
        tensors, key = training.state()
        work.save(Checkpoint(training.steps_taken, key, tensors), processes)
        if processes.rank == 0:
            spent = plan.spent(end)
            if spent is not None and plan.privacy is not None and spent_at_most is not None:
                ledger.record_steps(spent, plan.privacy.delta, spent_at_most)
        processes.wait()  # no process begins the stretch before it is on the ledger

    def report(step: int) -> None:
        if on_step is not None and processes.rank == 0:
            on_step(step, plan.schedule.steps, spent_at_most)

    run(training, begin_stretch, report)


def _card(plan: Plan, name: str, features: Features | None) -> ModelCard:
    classifier, held_out = plan.classifier, plan.parts.held_out
    if features is None:
        of_held_out = classifier.features(classifier.read(held_out))
    else:
        of_held_out = features.held_out
    correct = count_correct(classifier.model, of_held_out, torch.from_numpy(held_out.targets))
    not_covered = NOT_COVERED if tells_rows_apart(plan.parts.rule) else (*NOT_COVERED, CUT)
    return plan.card(name, correct, plan.spent(plan.schedule.steps), not_covered)
