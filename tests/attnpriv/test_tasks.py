from __future__ import annotations

import math

import torch

from attnpriv.tasks import CLASSIFY

LOGITS = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0], [-2.0, 1.0]])
TARGETS = torch.tensor([1, 0, 0])


def test_losses_are_the_logarithms_of_what_the_target_was_given() -> None:
    expected = [math.log(4 / 3), math.log(2), math.log1p(math.exp(3.0))]
    torch.testing.assert_close(CLASSIFY.losses(LOGITS, TARGETS), torch.tensor(expected))


def test_a_record_has_its_loss_whatever_stands_beside_it() -> None:
    together = CLASSIFY.losses(LOGITS, TARGETS)
    for row in range(3):
        own = slice(row, row + 1)
        assert torch.equal(CLASSIFY.losses(LOGITS[own], TARGETS[own]), together[own])


def test_the_first_of_equal_classes_is_the_answer() -> None:
    assert CLASSIFY.correct(LOGITS, TARGETS).tolist() == [True, True, False]


def test_answers_are_probabilities() -> None:
    answer = CLASSIFY.answer(LOGITS)
    torch.testing.assert_close(answer[:2], torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    torch.testing.assert_close(answer.sum(-1), torch.ones(3))
