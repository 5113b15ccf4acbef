"""Losses of detections image by image, matching, and mean average precision by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnpriv.detection import DETECT, average_precision, match, pair_giou, pair_iou

CLASSES, QUERIES = 3, 7
NOTHING = [-1.0] * 5


def output(*detections: tuple[int, float, tuple[float, ...]]) -> Tensor:
    """Queries with a class, its logit and a box; the others are sure of nothing."""
    found = torch.zeros(QUERIES, CLASSES + 5)
    found[:, CLASSES] = 9
    found[:, -4:] = torch.tensor([0.5, 0.5, 0.01, 0.01])
    for query, (number, logit, box) in enumerate(detections, start=2):
        found[query, : CLASSES + 1] = 0
        found[query, number] = logit
        found[query, -4:] = torch.tensor(box)
    return found


LEFT, RIGHT = (0.2, 0.5, 0.2, 0.4), (0.7, 0.5, 0.2, 0.4)
TWO = torch.tensor([[0, *LEFT], [2, *RIGHT]])
ONE = torch.tensor([[1, *LEFT], NOTHING])
NONE = torch.tensor([NOTHING, NOTHING])


def test_an_image_has_its_loss_whatever_stands_beside_it() -> None:
    """Many objects in one image, one or none in others: DETR would divide by all of them."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, QUERIES, CLASSES + 5, generator=generator)
    outputs[..., -4:] = outputs[..., -4:].sigmoid()
    targets = torch.stack([TWO, ONE, NONE])
    together = DETECT.losses(outputs, targets)
    for row in range(3):
        own = slice(row, row + 1)
        torch.testing.assert_close(DETECT.losses(outputs[own], targets[own]), together[own])
    # Room for more objects changes nothing either.
    wider = torch.cat([targets, targets.new_full((3, 4, 5), -1)], 1)
    torch.testing.assert_close(DETECT.losses(outputs, wider), together)


def test_objects_get_the_queries_that_fit_best() -> None:
    found = output((2, 5.0, RIGHT), (0, 5.0, LEFT))
    assert match(found[None], TWO[None]).tolist() == [[3, 2]]
    assert match(found[None], NONE[None]).tolist() == [[0, 0]]


def test_a_loss_is_0_where_all_is_found_and_grows_with_what_is_not() -> None:
    sure = output((0, 40.0, LEFT), (2, 40.0, RIGHT))
    sure[[0, 1, 4, 5, 6], CLASSES] = 40
    exact = float(DETECT.losses(sure[None], TWO[None]))
    assert exact == pytest.approx(0, abs=1e-6)
    moved = sure.clone()
    moved[2, -4] += 0.1  # half a width: IoU 1/3, hull 1.5 widths of which all is covered
    expected = (5 * 0.1 + 2 * (1 - 1 / 3)) / 2  # of two objects
    assert float(DETECT.losses(moved[None], TWO[None])) == pytest.approx(expected, rel=1e-4)


def test_overlaps_are_those_of_rectangles() -> None:
    one, other = torch.tensor([0.5, 0.5, 0.2, 0.2]), torch.tensor([0.6, 0.5, 0.2, 0.2])
    assert float(pair_iou(one, other)) == pytest.approx(1 / 3)
    assert float(pair_giou(one, other)) == pytest.approx(1 / 3)
    far = torch.tensor([0.9, 0.5, 0.2, 0.2])
    assert float(pair_iou(one, far)) == 0
    assert float(pair_giou(one, far)) == pytest.approx(-1 / 3)  # a third of the hull is empty


def test_an_image_is_right_if_nothing_is_missing_or_added() -> None:
    exact = output((0, 9.0, LEFT), (2, 9.0, RIGHT))
    swapped = output((2, 9.0, LEFT), (0, 9.0, RIGHT))
    twice = output((0, 9.0, LEFT), (2, 9.0, RIGHT), (2, 9.0, RIGHT))
    unsure = output((0, 9.0, LEFT), (2, 0.5, RIGHT))
    outputs = torch.stack([exact, swapped, twice, unsure, output(), output((0, 9.0, LEFT))])
    targets = torch.stack([TWO, TWO, TWO, TWO, NONE, NONE])
    assert DETECT.correct(outputs, targets).tolist() == [True, False, False, False, True, False]
    assert not bool(DETECT.correct(outputs[:1] * float("nan"), TWO[None]))


def precision(outputs: list[Tensor], targets: list[Tensor]) -> float | None:
    return average_precision([*DETECT.answer(torch.stack(outputs))], targets).mean


def test_average_precision_by_hand() -> None:
    exact = output((0, 9.0, LEFT), (2, 8.0, RIGHT))
    assert precision([exact], [TWO]) == 1
    assert precision([output((0, 9.0, LEFT))], [TWO]) == 0.5  # nothing of the other class
    # One class, three objects: right, wrong, right, and one that nobody found.
    ones = torch.tensor([[1, *LEFT], [1, *RIGHT]])
    first = output((1, 9.0, LEFT), (1, 5.0, (0.7, 0.9, 0.1, 0.1)))
    second = output((1, 3.0, LEFT))
    assert precision([first, second], [ones, ONE]) == pytest.approx((1 + 2 / 3) / 3)
    # The second detection of one object is wrong, before and after the right one of another.
    twice = output((1, 9.0, LEFT), (1, 8.0, LEFT), (1, 7.0, RIGHT))
    assert precision([twice], [ones]) == pytest.approx((1 + 2 / 3) / 2)
    assert precision([output()], [NONE]) is None
    result = average_precision([DETECT.answer(exact)], [TWO])
    assert (result.objects, result.classes, result.images) == ((1, 0, 1), (1, None, 1), 1)


def test_no_images_have_no_losses() -> None:
    """As of a process whose share of a batch is empty."""
    outputs = torch.zeros(0, QUERIES, CLASSES + 5, requires_grad=True)
    losses = DETECT.losses(outputs, torch.zeros(0, 2, 5))
    assert losses.shape == (0,)
    losses.sum().backward()
