"""Training records together with what a teacher makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import Precision
from attnpriv.modality import Modality, Sample
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.tasks import CLASSIFY
from attnpriv.training.batches import Losses, SampleRecords
from attnpriv.training.processes import ALONE, Processes

# Weights beside that of the answers, which is 1; docs/benchmark-log.md has others that were tried.
LABELS, STATES = 0.5, 10.0
SOFTNESS = 2.0  # the T at which answers are compared


class TaughtRecords(SampleRecords):
    """For training all or part of a student, which learns from a teacher besides the labels.

    The loss of a record is half of its cross-entropy, plus T² times the Kullback-Leibler divergence
    of the student's answer from the teacher's, both softened by T = 2 (Hinton et al. 2015,
    arXiv:1503.02531, section 2), plus 10 times the mean squared difference of their hidden states,
    averaged over the tokens and summed over the layers that are pooled (as Sun et al. 2019,
    arXiv:1908.09355, section 3.2, who compare one token of other layers).

    Args:
        teacher: a model of the student's shape; it is not changed.
        model: the student.
        modality: how the samples were read.
        samples: N of them.
        labels: their classes, [N].
        micro_batch_tokens: as in ``SampleRecords``.
        precision: of both models' forward passes.
    """

    def __init__(
        self,
        teacher: AttentionClassifier,
        model: AttentionClassifier,
        modality: Modality[Any, Any],
        samples: Sequence[Sample],
        labels: Tensor,
        micro_batch_tokens: int,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(model, modality, samples, labels, micro_batch_tokens, precision)
        self._teacher = teacher

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """As in ``Records``."""
        for rows, ids, mask in self.micro_batches(batch, processes):
            yield self._losses(self._labels[rows], ids, mask)

    def _losses(self, labels: Tensor, ids: Tensor, mask: Tensor) -> Losses:
        def losses(module: nn.Module) -> Tensor:
            with torch.no_grad():
                taught, answers = self._run(self._teacher, ids, mask)
            states, logits = self._run(cast(AttentionClassifier, module), ids, mask)
            wrong = CLASSIFY.losses(logits, labels)
            apart = distance(states, taught, mask)
            return LABELS * wrong + divergence(logits, answers) + STATES * apart

        return losses

    def _run(
        self, model: AttentionClassifier, ids: Tensor, mask: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Hidden states [B, T, D] of the pooled layers, and logits [B, K]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._precision == "bfloat16"):
            states, _ = model.encode(model.embed(ids), mask)
            logits = model.head(model.pool(states, mask))
        return [state.float() for state in states], logits.float()


def divergence(logits: Tensor, answers: Tensor) -> Tensor:
    """T²·KL(softmax(answers/T) ‖ softmax(logits/T)) of each row of two [B, K], as [B]."""
    student, teacher = (F.log_softmax(each / SOFTNESS, dim=-1) for each in (logits, answers))
    by_class = F.kl_div(student, teacher, reduction="none", log_target=True)
    return SOFTNESS**2 * by_class.sum(-1)


def distance(states: Sequence[Tensor], taught: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The mean squared difference over each text's visible tokens, summed over the layers, [B].

    Args:
        states: of S layers, [B, T, D] each.
        taught: the teacher's, likewise.
        mask: [B, T], True where a token is.
    """
    pairs = zip(states, taught, strict=True)
    squares = torch.stack([((ours - theirs) ** 2).mean(-1) for ours, theirs in pairs]).sum(0)
    return (squares * mask).sum(-1) / mask.sum(-1)
