from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest

from attnpriv.errors import InputError
from attnpriv.privacy.sampling import poisson_batch
from attnpriv.randomness import StepKeys, Stream


def draw(size: int, rate: float, steps: int, seed: int = 0) -> torch.Tensor:
    """Membership of each row in each batch, [steps, size]."""
    keys = StepKeys.from_seed(seed)
    joined = torch.zeros(steps, size)
    for step in range(steps):
        batch = poisson_batch(size, rate, Stream(keys.advance().sampling))
        assert batch.dtype == torch.int64
        assert batch.unique().numel() == batch.numel()
        joined[step, batch] = 1
    return joined


def test_every_row_joins_every_batch_with_the_given_chance_independently() -> None:
    joined = draw(50, 0.2, 4000)
    assert binomtest(int(joined.sum()), joined.numel(), 0.2).pvalue > 1e-3
    sizes = joined.sum(1)
    # Fixed-size batches would have variance 0, independent coins have N q (1 - q) = 8.
    assert sizes.var().item() == pytest.approx(8.0, rel=0.1)
    first, second = joined[:, 0], joined[:, 1]
    both = int((first * second).sum())
    assert binomtest(both, 4000, 0.04).pvalue > 1e-3
    again = int((first[:-1] * first[1:]).sum())
    assert binomtest(again, 3999, 0.04).pvalue > 1e-3


def test_batches_can_be_empty_and_still_come() -> None:
    sizes = draw(5, 0.01, 200).sum(1)
    assert len(sizes) == 200
    assert (sizes == 0).any()
    assert (draw(5, 1.0, 3) == 1).all()
    assert poisson_batch(0, 0.5, Stream(bytes(32))).shape == (0,)


def test_coins_and_rate_are_compared_in_full_precision() -> None:
    coins = Stream(bytes(32)).uniform(50)
    for row, coin in enumerate(coins.tolist()):
        just_missed = poisson_batch(50, coin, Stream(bytes(32))).tolist()
        just_joined = poisson_batch(50, math.nextafter(coin, 1), Stream(bytes(32))).tolist()
        assert just_joined == sorted([*just_missed, row])


def test_one_seed_repeats_and_another_does_not() -> None:
    assert torch.equal(draw(100, 0.3, 5, seed=1), draw(100, 0.3, 5, seed=1))
    assert not torch.equal(draw(100, 0.3, 5, seed=1), draw(100, 0.3, 5, seed=2))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(InputError, match="expected sample_rate"):
        poisson_batch(5, rate, Stream(bytes(32)))
