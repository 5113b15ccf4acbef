"""Training as a whole: split, build, fit, write the run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attnpriv.config import AttentionConfig, Pooling, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_both, split_rule, tells_rows_apart
from attnpriv.models.lora import merge_adapters
from attnpriv.privacy.accounting import noise_multiplier_for, steps_within
from attnpriv.privacy.ledger import Ledger, NoisedSteps
from attnpriv.randomness import StepKeys
from attnpriv.runs.card_builder import CUT, NOT_COVERED, build_card
from attnpriv.runs.folder import Run, publish
from attnpriv.training.checkpoint import (
    Checkpoint,
    TrainingFolder,
    open_training_folder,
    require_new,
    training_folder,
)
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
    weights_sha256,
)
from attnpriv.training.processes import Processes, join_processes
from attnpriv.training.release import (
    TrainingResult,
    count_correct,
    write_release,
    writing_is_possible,
)
from attnpriv.training.teacher import check_no_shape, description, load_teacher, student_of

OnStep = Callable[[int, int, float | None], None]
RESUMABLE = "--resume goes on from the last saved state, where there is one"


def train(
    dataset: Dataset,
    out: Path,
    *,
    attention: AttentionConfig,
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    encoder: str | None = None,
    pooling: Pooling | None = None,
    share_layers: bool = False,
    distil_from: Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train a text classifier and write its run folder.

    Args:
        dataset: labelled texts; ``config.train_size`` of them are trained on.
        out: the run folder to make.
        attention: hardening of every layer.
        config: how to fit.
        privacy: the target, or None for training without privacy, which the card then says.
        encoder: ``scratch`` (the default), ``minilm`` or a folder in Hugging Face layout with BERT
            or MPNet.
        pooling: how token vectors become one text vector; by default, by ``layers``.
        share_layers: the layers of an encoder from scratch apply one block.
        distil_from: the run folder of a teacher, trained on the same rows: the model starts with
            its weights, learns from it besides the labels, as in ``distillation.TaughtRecords``,
            and has its encoder, pooling and sharing. Without privacy only.
        resume: go on with the unfinished training of this run folder.
        on_step: called with (step, steps, ε spent at most by then) after each step.

    Raises:
        InputError: the data, the target or the options cannot be used, or the unfinished training
            is another one. Nothing is written then.

    Claim: with ``privacy``, the weights are (ε, δ)-differentially private with respect to adding or
    removing one training record, ε as on the card. Not covered: what the card and the ledger list
    under ``not_covered``. Whatever ends the training early, KeyboardInterrupt included, leaves a
    work folder beside ``out`` whose ledger states at least what was spent; resumed, the training
    ends with the same bits as if it had never stopped.
    """
    require_new(out)
    teacher: Run | None = None
    if distil_from is None:
        shape = (encoder or "scratch", attention, pooling or "layers", share_layers)
        build = partial(build_classifier, *shape, len(dataset.label_names))
    else:
        check_no_shape(encoder=encoder, pooling=pooling, share_layers=share_layers or None)
        teacher = load_teacher(distil_from, dataset, config, privacy)
        build = partial(student_of, teacher, attention)
    with join_processes() as processes:
        plan = _plan(dataset, build, teacher, config, privacy)
        identity = _identity(plan)
        with (
            writing_is_possible(out, RESUMABLE),
            open_training_folder(out, identity, resume=resume)
            if processes.rank == 0
            else nullcontext(training_folder(out, identity)) as work,
        ):
            processes.wait()  # until rank 0 has the folder
            training = _begin(plan, work, processes, resume)
            _run(plan, training, work, processes, on_step)
            training.finish()
            merge_adapters(plan.classifier.model)
            card = _card(plan, out.name)
            if processes.rank == 0:
                write_release(work.run, plan.classifier, plan.config, card)
                publish(work.run, out)
        processes.wait()  # until there is the run folder
    return TrainingResult(out, card, training.skipped_records)


@dataclass(frozen=True)
class _Plan:
    """All that is decided before the first step."""

    dataset: Dataset
    rule: dict[str, Any]
    rows: Dataset
    held_out: Dataset
    config: TrainConfig
    privacy: PrivacyConfig | None
    schedule: Schedule
    noise_multiplier: float
    classifier: Classifier
    teacher: Run | None

    def spent(self, steps: int) -> NoisedSteps | None:
        """What that many steps spend; None without privacy."""
        if self.privacy is None:
            return None
        return NoisedSteps(
            self.noise_multiplier, self.schedule.sample_rate, steps, self.privacy.max_grad_norm
        )

    def epsilon(self, steps: int) -> float | None:
        """The ε of that many steps; None without privacy."""
        spent = self.spent(steps)
        if spent is None or self.privacy is None:
            return None
        return spent.epsilon(self.privacy.delta, self.privacy.accountant)


def _plan(
    dataset: Dataset,
    build: Callable[[], Classifier],
    teacher: Run | None,
    config: TrainConfig,
    privacy: PrivacyConfig | None,
) -> _Plan:
    rule = split_rule(config.train_size, config.seed)
    train_rows, held_out_rows = split_both(dataset.texts, rule)
    rows = dataset.subset(train_rows)
    schedule, noise_multiplier = _schedule(config, privacy, rows)
    config = replace(config, steps=schedule.steps, batch_size=schedule.batch_size)
    with seeded(config.seed):
        classifier = build()
        classifier.model.select_trainable(config.trainable)
    return _Plan(
        dataset=dataset,
        rule=rule,
        rows=rows,
        held_out=dataset.subset(held_out_rows),
        config=config,
        privacy=privacy,
        schedule=schedule,
        noise_multiplier=noise_multiplier,
        classifier=classifier,
        teacher=teacher,
    )


def _schedule(
    config: TrainConfig, privacy: PrivacyConfig | None, rows: Dataset
) -> tuple[Schedule, float]:
    """Fill in steps, batch size and noise, and check what depends on the data."""
    check_classes(rows)
    schedule = make_schedule(config, len(rows))
    if privacy is None:
        return schedule, 0.0
    check_delta(privacy.delta, len(rows))
    target = (privacy.epsilon, privacy.delta, schedule.sample_rate, schedule.steps)
    if privacy.noise_multiplier is None:
        return schedule, noise_multiplier_for(*target, privacy.accountant)
    steps = steps_within(
        privacy.epsilon,
        privacy.noise_multiplier,
        privacy.delta,
        schedule.sample_rate,
        schedule.steps,
        privacy.accountant,
    )
    return replace(schedule, steps=steps), privacy.noise_multiplier


def _identity(plan: _Plan) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    model = plan.classifier.model
    return {
        "data": plan.dataset.fingerprint(),
        "split by": plan.rule.get("rule"),
        **{f"model {name}": value for name, value in model.config.to_dict().items()},
        **{f"training {name}": value for name, value in asdict(plan.config).items()},
        **{
            f"privacy {name}": value
            for name, value in (asdict(plan.privacy) if plan.privacy else {}).items()
        },
        "noise_multiplier": plan.noise_multiplier,
        "teacher": description(plan.teacher),
        "initial weights": weights_sha256(model),  # last: what else differs explains them
    }


def _begin(plan: _Plan, work: TrainingFolder, processes: Processes, resume: bool) -> Training:
    """The training before its next step, whether that is its first or not."""
    seed = plan.config.seed if plan.privacy is None else plan.privacy.noise_seed
    keys = StepKeys.from_system() if seed is None else StepKeys.from_seed(seed)
    checkpoint = work.load() if resume else None
    encodings = plan.classifier.encode(plan.rows.texts)
    labels = torch.tensor(plan.rows.labels)
    teacher = None if plan.teacher is None else plan.teacher.model
    training = Training(
        make_records(plan.classifier, encodings, labels, plan.config, teacher=teacher),
        make_optimizer(plan.classifier.model, plan.config),
        plan.schedule,
        plan.config,
        privacy=plan.privacy,
        noise_multiplier=plan.noise_multiplier,
        keys=StepKeys(processes.agree_on(keys.key)),
        processes=processes,
    )
    if checkpoint is not None:
        training.load_state(checkpoint.tensors, checkpoint.key, checkpoint.steps_taken)
    return training


def _run(
    plan: _Plan,
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
        if processes.rank != 0:
            return
        tensors, key = training.state()
        work.save(Checkpoint(training.steps_taken, key, tensors))
        spent = plan.spent(end)
        if spent is not None and plan.privacy is not None and spent_at_most is not None:
            ledger.record_steps(spent, plan.privacy.delta, spent_at_most)

    def report(step: int) -> None:
        if on_step is not None and processes.rank == 0:
            on_step(step, plan.schedule.steps, spent_at_most)

    run(training, begin_stretch, report)


def _card(plan: _Plan, name: str) -> dict[str, Any]:
    model, held_out = plan.classifier.model, plan.held_out
    features = plan.classifier.features(plan.classifier.encode(held_out.texts))
    correct = count_correct(model, features, held_out.labels)
    return build_card(
        name=name,
        model=model.config,
        temperatures=model.temperatures(),
        label_names=plan.dataset.label_names,
        config=plan.config,
        privacy=plan.privacy,
        spent=plan.spent(plan.schedule.steps),
        data={
            "name": plan.dataset.name,
            "rows_train": len(plan.rows),
            "fingerprint": plan.dataset.fingerprint(),
            "split": plan.rule,
        },
        held_out={"rows": len(held_out), "accuracy": correct / len(held_out)},
        not_covered=(
            *NOT_COVERED,
            *([] if tells_rows_apart(plan.rule) else [CUT]),
            *plan.dataset.data_dependent,
        ),
        teacher=description(plan.teacher),
    )
