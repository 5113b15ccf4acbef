"""A replay audit of ``attnpriv train`` in any configuration, on records that nobody owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from attnpriv.config import AttentionConfig, Pooling, PrivacyConfig, TrainConfig
from attnpriv.data.records import Texts
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.randomness import StepKeys
from attnpriv.training.batches import Records
from attnpriv.training.loop import Schedule, Training
from attnpriv.training.plan import Parts, Plan, plan_training
from attnpriv.training.preparation import (
    Classifier,
    build_classifier,
    make_optimizer,
    make_records,
    seeded,
)
from attnpriv.training.processes import Processes
from attnpriv.training.replay import Begin, Subject
from attnpriv.training.replay_checks import Check, replay_audit

ROWS = 4000  # of the data set that is imagined
LARGE_LOSS = 1e4  # what losses are multiplied by, so that every record is far above C
BROKEN = "zyxw unheard"  # its first word gets an embedding that is not finite
TEXTS = (
    ("an ordinary text", "the invoice of last month was charged twice", 0),
    ("the same with another label", "the invoice of last month was charged twice", 1),
    ("the same again", "the invoice of last month was charged twice", 1),
    ("one character", "a", 0),
    ("no character", "", 1),
    ("the longest text", "please call me back about the order " * 400, 0),
    ("one word repeated", "now now now now now now now now", 1),
    ("other scripts and signs", "请 перезвоните 📞 !!! 0800 169 6031", 0),
    ("a record whose gradient is not finite", BROKEN, 1),
)


@dataclass(frozen=True)
class Verification:
    """What a replay audit of a configuration found.

    Attributes:
        plan: the training that it was of.
        trained: how many numbers are trained.
        checks: in the order of the table.
    """

    plan: Plan
    trained: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed for check in self.checks)


def verify_trainer(
    *,
    attention: AttentionConfig | None = None,
    config: TrainConfig,
    privacy: PrivacyConfig,
    encoder: str = "scratch",
    pooling: Pooling = "layers",
    share_layers: bool = False,
    normalise: bool = False,
    rows: int = ROWS,
    classes: int = 2,
    begin: Callable[[Plan], Begin] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Verification:
    """Check by replay that a training does what its accountant is told.

    Args:
        attention: as in ``train.train``.
        config: likewise.
        privacy: likewise.
        encoder: likewise.
        pooling: likewise.
        share_layers: likewise.
        normalise: likewise.
        rows: number of training rows; with the batch size, it decides the sampling rate.
        classes: number of classes.
        begin: how the trainer of a plan is made; by default, as ``attnpriv train`` does.
        on_step: called with what comes next.

    Raises:
        InputError: the options do not go together, as in ``train.train``.

    Claim and limits as in ``replay_checks``. No private data is read: the records are made up, the
    head's weights are drawn, since a head of zeros passes nothing on, and every loss is scaled.
    """
    if not 2 <= classes <= rows:
        raise InputError(f"expected classes from 2 to the {rows} rows, got {classes}")
    parts = _imagined(rows, classes)
    shape = (encoder, attention, pooling, share_layers, classes)
    build = partial(build_classifier, *shape, normalise=normalise)
    plan = plan_training(parts, build, config, privacy)
    encodings = plan.classifier.modality.read([text for _, text, _ in TEXTS])
    with seeded(config.seed), torch.no_grad():
        plan.classifier.model.head.weight.normal_()
    broken = _break(plan.classifier, encodings)
    records = make_records(
        plan.classifier, encodings, torch.tensor([label for *_, label in TEXTS]), plan.config
    )
    subject = Subject(
        begin=(begin or _as_train_does)(plan),
        records=records,
        names=[name for name, *_ in TEXTS],
        make_optimizer=partial(make_optimizer, plan.classifier.model, plan.config),
        schedule=plan.schedule,
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        loss_scale=LARGE_LOSS * max(1.0, privacy.max_grad_norm),
    )
    checks = replay_audit(subject, broken, on_step)
    trained = sum(p.numel() for p in records.module.parameters() if p.requires_grad)
    return Verification(plan, trained, tuple(checks))


def _as_train_does(plan: Plan) -> Begin:
    def begin(
        records: Records, optimizer: torch.optim.Optimizer, schedule: Schedule, keys: StepKeys
    ) -> Training:
        return Training(
            records,
            optimizer,
            schedule,
            plan.config,
            privacy=plan.privacy,
            noise_multiplier=plan.noise_multiplier,
            keys=keys,
            processes=Processes(),
        )

    return begin


def _imagined(rows: int, classes: int) -> Parts:
    """A data set of that size, of which only the size counts."""
    names = tuple(f"class {number}" for number in range(classes))
    labels = tuple(row % classes for row in range(rows))
    data = Texts("imagined", ("",) * rows, labels, names)
    return Parts(data, {}, data, data.subset([0]))


def _break(classifier: Classifier, encodings: Sequence[Encoding]) -> int | None:
    """Make the embedding of a token infinite that the last text alone has, if there is one.

    Returns:
        The number of the last text, or None.
    """
    *others, last = encodings
    known = {token for encoding in others for token in encoding.ids}
    own = [token for token in last.ids if token not in known]
    if not own:
        return None
    with torch.no_grad():
        classifier.model.get_parameter("words.weight")[own[0]] = torch.inf
    return len(others)
