from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest, norm, pearsonr
from torch import Tensor

from attnpriv.errors import InputError
from attnpriv.randomness import PAIRS_AT_ONCE, StepKeys, Stream, normal_pairs

# RFC 8439, appendix A.1, test vectors 1 and 2: the first two blocks of the key of zeros.
ZERO_KEY = bytes(32)
ZERO_KEYSTREAM = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
# Test vector 3: the second block of the key that ends in 1.
ONE_KEY = bytes(31) + b"\x01"
ONE_SECOND_BLOCK = bytes.fromhex(
    "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
    "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"
)


@pytest.fixture(scope="module")
def normals() -> np.ndarray:
    return normal(Stream(ZERO_KEY), 20_000_000).numpy().astype(np.float64)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def normal(stream: Stream, size: int, std: float = 1.0) -> Tensor:
    return stream.add_normal_(torch.zeros(size), std)


def as_uniforms(keystream: bytes) -> list[float]:
    words = [keystream[i : i + 8] for i in range(0, len(keystream), 8)]
    return [(int.from_bytes(word, "little") >> 11) / 2**53 for word in words]


def test_uniforms_are_the_keystream_of_the_rfc() -> None:
    assert Stream(ZERO_KEY).uniform(16).tolist() == as_uniforms(ZERO_KEYSTREAM)
    assert Stream(ONE_KEY).uniform(16)[8:].tolist() == as_uniforms(ONE_SECOND_BLOCK)


def test_normals_are_box_muller_of_the_keystream_of_the_rfc() -> None:
    expected = []
    for pair in range(5):
        k = int.from_bytes(ZERO_KEYSTREAM[8 * pair :][:8], "little", signed=True)
        a = int.from_bytes(ZERO_KEYSTREAM[40 + 4 * pair :][:4], "little", signed=True)
        radius = math.sqrt(-2 * math.log(abs(2 * k + 1) / 2**64))
        expected.append(
            (radius * math.cos(a * math.pi / 2**31), radius * math.sin(a * math.pi / 2**31))
        )
    cosines, sines = zip(*expected, strict=True)
    both = torch.tensor([*cosines, *sines])
    assert torch.allclose(normal(Stream(ZERO_KEY), 10), both, rtol=1e-5, atol=1e-6)
    assert torch.allclose(normal(Stream(ZERO_KEY), 9, std=3.0), 3 * both[:9], rtol=1e-5, atol=1e-6)


def test_uniforms_have_53_bits_and_stay_below_one() -> None:
    coins = Stream(ZERO_KEY).uniform(200_000)
    assert coins.dtype == torch.float64
    assert 0 <= coins.min() < 1e-4
    assert 1 - 1e-4 < coins.max() < 1
    units = (coins * 2**53).long()
    assert torch.equal(units.double() / 2**53, coins)
    for bit in range(53):
        ones = int((units >> bit & 1).sum())
        assert binomtest(ones, len(coins)).pvalue > 1e-4, bit
    assert kstest(coins.numpy(), "uniform").pvalue > 1e-3


def test_normals_follow_the_gaussian(normals: np.ndarray) -> None:
    some = normals[:2_000_000]
    assert kstest(some, "norm").pvalue > 1e-3
    squares = some**2
    assert abs(some.mean()) < 4 / math.sqrt(some.size)
    assert abs(squares.mean() - 1) < 4 * math.sqrt(2 / some.size)
    assert abs((squares**2).mean() - 3) < 4 * math.sqrt(96 / some.size)


@pytest.mark.parametrize("far", [3.0, 4.0, 4.5, 5.0])
def test_both_tails_hold_what_a_gaussian_holds(normals: np.ndarray, far: float) -> None:
    for beyond in (normals > far, normals < -far):
        assert binomtest(int(beyond.sum()), normals.size, norm.sf(far)).pvalue > 1e-3


def test_the_two_numbers_of_a_pair_and_neighbours_are_independent(normals: np.ndarray) -> None:
    chunk = normals[: 2 * PAIRS_AT_ONCE]
    first, second = chunk[:PAIRS_AT_ONCE], chunk[PAIRS_AT_ONCE:]
    for x, y in ((first, second), (chunk[:-1], chunk[1:])):
        assert pearsonr(x, y).pvalue > 1e-3
        assert pearsonr(x**2, y**2).pvalue > 1e-3
    assert kstest(np.arctan2(second, first) / math.tau + 0.5, "uniform").pvalue > 1e-3


def test_every_radius_is_finite_and_exact_at_both_ends() -> None:
    k = [0, -1, 1, 5, -1000, 2**40, 2**62, 2**63 - 2**30, 2**63 - 1, -(2**63)]
    cosine, sine = normal_pairs(np.array(k, np.int64), np.zeros(len(k), np.int32), 1.0)
    expected = [math.sqrt(max(0.0, -2 * math.log(abs(2 * i + 1) / 2**64))) for i in k]
    assert expected[0] > 9.4
    assert cosine.dtype == np.float32
    assert cosine == pytest.approx(expected, rel=1e-6)
    assert (sine == 0).all()


def test_noise_is_added_and_scaled() -> None:
    size = 2 * PAIRS_AT_ONCE + 7
    noise = normal(Stream(ONE_KEY), size)
    out = torch.full((size,), 2.0)
    assert Stream(ONE_KEY).add_normal_(out, 0.5) is out
    assert torch.equal(out, 2.0 + 0.5 * noise)
    assert noise.unique().numel() > 0.99 * size


def test_no_noise_still_uses_the_stream() -> None:
    stream = Stream(ONE_KEY)
    assert (normal(stream, 5, std=0.0) == 0).all()
    after = Stream(ONE_KEY)
    normal(after, 5)
    assert torch.equal(normal(stream, 3), normal(after, 3))


def test_any_shape_is_filled_like_a_flat_one() -> None:
    shaped = Stream(ONE_KEY).add_normal_(torch.zeros(3, 5, 7), 1.0)
    assert torch.equal(shaped.flatten(), normal(Stream(ONE_KEY), 105))
    part = torch.zeros(5, 7)
    Stream(ONE_KEY).add_normal_(part[1:3], 1.0)
    assert torch.equal(part[1:3].flatten(), normal(Stream(ONE_KEY), 14))
    assert (part[[0, 3, 4]] == 0).all()


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_tensor_get_the_noise_of_the_whole(parts: int) -> None:
    """In processes of their own, with another tensor before and after it."""
    size = 5 * PAIRS_AT_ONCE + 7  # chunks at odd places of the keystream, and half a pair
    stream = Stream(ONE_KEY)
    before, noise, after = (normal(stream, n) for n in (13, size, 11))
    most = -(-size // parts)
    for start in range(0, size, most):
        part = torch.zeros(min(most, size - start))
        stream = Stream(ONE_KEY)
        assert torch.equal(normal(stream, 13), before)
        stream.add_normal_(part, 1.0, start=start, whole=size)
        assert torch.equal(part, noise[start : start + most])
        assert torch.equal(normal(stream, 11), after)
    stream.add_normal_(torch.zeros(0), 1.0, start=size, whole=size)  # a process without rows
    with pytest.raises(InputError, match="expected a part of 7 numbers, got 3 from 5 on"):
        stream.add_normal_(torch.zeros(3), 1.0, start=5, whole=7)


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_empty_and_single_numbers(shape: tuple[int, ...]) -> None:
    stream = Stream(ONE_KEY)
    noise = stream.add_normal_(torch.zeros(shape), 1.0)
    assert noise.shape == shape
    assert int((noise != 0).sum()) == math.prod(shape)
    assert stream.uniform(0).shape == (0,)


@pytest.mark.usefixtures("restored_threads")
def test_the_same_calls_give_the_same_bits_on_any_number_of_threads() -> None:
    def draw() -> tuple[Tensor, ...]:
        stream = Stream(ONE_KEY)
        return normal(stream, 300_001, 0.7), stream.uniform(1001), normal(stream, 11)

    torch.set_num_threads(1)
    alone = draw()
    torch.set_num_threads(3)
    assert all(map(torch.equal, alone, draw()))
    assert not torch.equal(alone[0][:11], 0.7 * alone[2])


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(5, dtype=torch.float64),
        torch.zeros(5, dtype=torch.bfloat16),
        torch.zeros(5, dtype=torch.int64),
        torch.zeros(5, 7).T,
        torch.zeros(1).expand(5),
        torch.zeros(5, device="meta"),
    ],
)
def test_other_tensors_are_refused(out: Tensor) -> None:
    with pytest.raises(InputError, match="expected a contiguous float32 tensor on the CPU"):
        Stream(ONE_KEY).add_normal_(out, 1.0)


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf, 1e-31, 1e31])
def test_other_deviations_are_refused(std: float) -> None:
    with pytest.raises(InputError, match="expected std"):
        Stream(ONE_KEY).add_normal_(torch.zeros(5), std)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_keys_of_another_length_are_refused_unquoted(key: bytes) -> None:
    for wants_key in (StepKeys, Stream):
        with pytest.raises(InputError, match=f"^expected a key of 32 bytes, got {len(key)}$"):
            wants_key(key)


def test_steps_and_purposes_have_keys_of_their_own() -> None:
    keys = StepKeys.from_seed(0)
    drawn = [keys.key]
    for _ in range(50):
        step = keys.advance()
        drawn += [step.sampling, step.noise, keys.key]
    assert len(set(drawn)) == len(drawn)
    assert {len(key) for key in drawn} == {32}
    for one, other in pairwise(drawn[1:21]):
        x, y = (normal(Stream(key), 20_000) for key in (one, other))
        assert pearsonr(x, y).pvalue > 1e-3


def test_a_checkpointed_key_continues_and_keeps_nothing_of_the_past() -> None:
    keys = StepKeys.from_system()
    before = keys.key
    first = keys.advance()
    resumed = StepKeys(keys.key)
    assert vars(keys) == vars(resumed)  # the new key is all there is
    assert keys.key != before
    assert resumed.advance() == keys.advance() != first
    assert StepKeys(before).advance() == first


def test_a_seed_repeats_and_the_system_does_not() -> None:
    assert StepKeys.from_seed(5).advance() == StepKeys.from_seed(5).advance()
    # torch's Mersenne twister takes these two for the same seed.
    assert StepKeys.from_seed(5).key != StepKeys.from_seed(5 + 2**32).key
    assert StepKeys.from_seed(-5).key != StepKeys.from_seed(5).key
    assert len({StepKeys.from_system().key for _ in range(8)}) == 8


def test_the_derivation_is_pinned_so_that_checkpoints_keep_their_meaning() -> None:
    keys = StepKeys(ZERO_KEY)
    step = keys.advance()
    assert step.sampling.hex() == "2f9d6111c603e91dc8357a04b3850da2ad4078f02f35f95eccb030fdd3fec573"
    assert step.noise.hex() == "ca5d34d235c8c3f85fbc7070c9a7a09bb64624e0d65b2063040db0aa61c8929c"
    assert keys.key.hex() == "09559e1556b1caa4aedb54378340b9a5e116f98184d70c08ba378b5aa3211f59"
