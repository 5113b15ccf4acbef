"""Hardened attention: bounds on a grid, a float64 oracle, and every edge case of the table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attnpriv import guarantees as g
from attnpriv.attention import MultiHeadSelfAttention, attend, attention_weights
from attnpriv.config import AttentionConfig, ClipMode
from attnpriv.errors import InputError

MODES: tuple[ClipMode, ...] = ("clamp", "tanh", "norm", "relative")
CONFIGS = [
    AttentionConfig(),
    AttentionConfig(temperature=0.5),
    *(AttentionConfig(tau, c, mode) for mode in MODES for c in (0.5, 4.0) for tau in (0.5, 2.0)),
]
# A weight is rounded once to its dtype; float32 also carries the error of exp at logits up to 16.
SLACK = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2**-8, torch.float16: 2**-10}

SMALLEST = {torch.float16: 2**-24}  # its least positive number; lesser weights round to it or to 0


def random_qkv(
    dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0, keys: int = 7
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 3, 5, 11, generator=generator, dtype=torch.float64) * scale
    k = torch.randn(2, 3, keys, 11, generator=generator, dtype=torch.float64) * scale
    v = torch.randn(2, 3, keys, 13, generator=generator, dtype=torch.float64)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def random_mask() -> Tensor:
    mask = torch.rand(2, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:, 0] = True
    return mask


def reference_row(
    q: np.ndarray, keys: np.ndarray, visible: np.ndarray, config: AttentionConfig
) -> np.ndarray:
    """One row in plain float64 numpy, written from the definition."""
    d = len(q)
    logits = np.full(len(keys), -np.inf)
    for j, key in enumerate(keys):
        if not visible[j]:
            continue
        query = q
        if config.clip is not None and config.clip_mode == "norm":
            radius = math.sqrt(config.clip * math.sqrt(d))
            query = q * min(1.0, radius / max(np.linalg.norm(q), 1e-300))
            key = key * min(1.0, radius / max(np.linalg.norm(key), 1e-300))
        z = float(query @ key) / math.sqrt(d)
        if config.clip is not None and config.clip_mode == "clamp":
            z = max(-config.clip, min(config.clip, z))
        if config.clip is not None and config.clip_mode == "tanh":
            z = config.clip * math.tanh(z / config.clip)
        logits[j] = z
    if config.clip is not None and config.clip_mode == "relative":
        logits = np.where(visible, np.maximum(logits, logits.max() - 2 * config.clip), -np.inf)
    logits /= config.temperature
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.every_value
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_weights_and_output_equal_a_float64_reference(
    config: AttentionConfig, dtype: torch.dtype
) -> None:
    q, k, v = random_qkv(dtype, scale=2.0)
    mask = random_mask()
    weights = attention_weights(q, k, mask, config).double()
    eager, _ = attend(q, k, v, mask, config, need_weights=True)
    fused, none = attend(q, k, v, mask, config)
    assert none is None
    tolerance = 6 * SLACK[dtype]
    for b, h, t in itertools.product(range(2), range(3), range(5)):
        row = reference_row(
            q[b, h, t].double().numpy(), k[b, h].double().numpy(), mask[b].numpy(), config
        )
        expected = row @ v[b, h].double().numpy()
        np.testing.assert_allclose(weights[b, h, t], row, atol=tolerance)
        np.testing.assert_allclose(eager[b, h, t].double(), expected, atol=3 * tolerance)
        # The fused kernel also rounds the clipped queries and keys to the dtype.
        np.testing.assert_allclose(fused[b, h, t].double(), expected, atol=12 * tolerance)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_gradients_of_fused_and_eager_agree(config: AttentionConfig) -> None:
    inputs = [x.double().requires_grad_() for x in random_qkv()]
    q, k, v = inputs
    for need_weights in (False, True):
        out, _ = attend(q, k, v, random_mask(), config, need_weights)
        (out**2).sum().backward()
    # Both passes added up: twice the eager gradient if they agree.
    total = [x.grad.clone() for x in inputs if x.grad is not None]
    for x in inputs:
        x.grad = None
    out, _ = attend(q, k, v, random_mask(), config, need_weights=True)
    (out**2).sum().backward()
    for both, x in zip(total, inputs, strict=True):
        torch.testing.assert_close(both, 2 * x.grad, rtol=1e-9, atol=1e-11)


def adversarial(scale: float, keys: int) -> tuple[Tensor, Tensor]:
    """Each query aligned with one key and opposed to all others."""
    k = -torch.ones(2, 3, keys, 11)
    k[:, :, 0] = 1.0
    return torch.ones(2, 3, 5, 11) * scale, k * scale


@pytest.mark.every_pair
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("c", [0.1, 1.7, 8.0])
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("keys", [1, 2, 7, 31])
@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_no_logits_leave_the_bounds(
    mode: ClipMode, c: float, tau: float, keys: int, dtype: torch.dtype
) -> None:
    config = AttentionConfig(tau, c, mode)
    low, high = g.weight_bounds(c, tau, keys)
    slack = SLACK[dtype]
    inputs = [adversarial(scale, keys) for scale in (1.0, 1e2)]
    inputs += [random_qkv(scale=scale, seed=seed, keys=keys)[:2]
               for scale in (1.0, 30.0) for seed in range(3)]  # fmt: skip
    for q, k in inputs:
        weights = attention_weights(q.to(dtype), k.to(dtype), None, config).double()
        assert weights.max() <= high * (1 + slack)
        assert weights.min() >= low * (1 - slack) - SMALLEST.get(dtype, 0.0)
        mass = weights[..., : max(1, keys // 3)].sum(-1).max()
        assert mass <= g.mass_bound(c, tau, keys, max(1, keys // 3)) * (1 + slack)


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_weight_bound_is_attained_by_an_adversary(mode: ClipMode) -> None:
    config = AttentionConfig(1.0, 2.0, mode)
    weights = attention_weights(*adversarial(50.0, 7), None, config)
    assert weights.max() >= 0.999 * g.weight_bounds(2.0, 1.0, 7)[1]


@pytest.mark.parametrize("mode", MODES)
def test_fused_norm_and_others_keep_rounded_logits_within_the_clip(mode: ClipMode) -> None:
    """In bfloat16 the fused kernel sees rounded keys; the values reveal the weights it used."""
    config = AttentionConfig(1.0, 1.7, mode)
    q, k = (x.to(torch.bfloat16) for x in adversarial(3.0, 7))
    one_hot = torch.eye(7, dtype=torch.bfloat16).expand(2, 3, 7, 7)
    weights, _ = attend(q, k, one_hot, None, config)
    assert weights.double().max() <= g.weight_bounds(1.7, 1.0, 7)[1] * (1 + 2**-8)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_row_without_visible_keys_is_zero_with_zero_gradients(config: AttentionConfig) -> None:
    q, k, v = (x.requires_grad_() for x in random_qkv())
    mask = random_mask()
    mask[1] = False
    for need_weights in (False, True):
        out, weights = attend(q, k, v, mask, config, need_weights)
        assert not out[1].any()
        assert weights is None or not weights[1].any()
        out.sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert not x.grad[1].any()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_empty_sequences(config: AttentionConfig) -> None:
    q, k, v = random_qkv()
    for need_weights in (False, True):
        out, weights = attend(q, k[:, :, :0], v[:, :, :0], None, config, need_weights)
        assert out.shape == (2, 3, 5, 13)
        assert not out.any()
        assert weights is None or weights.shape == (2, 3, 5, 0)
        out, _ = attend(q[:, :, :0], k, v, random_mask(), config, need_weights)
        assert out.shape == (2, 3, 0, 13)


@pytest.mark.every_value
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(5, 0), (0, 7), (0, 0)])
def test_empty_sequences_pass_gradients_on(
    config: AttentionConfig, queries: int, keys: int
) -> None:
    """A network that trains on one may not be cut off: every parameter gets a gradient of zero."""
    q, k, v = random_qkv()
    inputs = [q[:, :, :queries], k[:, :, :keys], v[:, :, :keys], torch.ones(3)]
    q, k, v, tau = (x.requires_grad_() for x in inputs)
    out, _ = attend(q, k, v, None, config, temperature=tau)
    out.sum().backward()
    for x in (q, k, v, tau):
        assert x.grad is not None
        assert not x.grad.any()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_nan_reaches_the_rows_that_see_it_and_no_others(config: AttentionConfig) -> None:
    q, k, _ = random_qkv()
    q[0, 0, 2] = math.nan
    k[1, 2, 3] = math.nan
    weights = attention_weights(q, k, None, config)
    assert weights[0, 0, 2].isnan().all()
    assert weights[1, 2].isnan().all()
    spoilt = weights.isnan().all(-1)
    spoilt[0, 0, 2] = spoilt[1, 2] = False
    assert not spoilt.any()
    masked = torch.ones(2, 7, dtype=torch.bool)
    masked[1, 3] = False
    assert attention_weights(q, k, masked, config)[1].isfinite().all()


@pytest.mark.every_value
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("need_weights", [False, True])
def test_nan_reaches_the_outputs_that_see_it_and_no_others(
    config: AttentionConfig, need_weights: bool
) -> None:
    q, k, v = random_qkv()
    q[0, 0, 2] = math.nan
    k[1, 2, 3] = math.nan
    out, _ = attend(q, k, v, None, config, need_weights)
    assert out[0, 0, 2].isnan().all()
    assert out[1, 2].isnan().all()
    out[0, 0, 2] = out[1, 2] = 0
    assert out.isfinite().all()


@pytest.mark.parametrize("mode", ["clamp", "tanh", "relative"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_infinite_logits_are_clipped_without_weights_too(
    mode: ClipMode, dtype: torch.dtype
) -> None:
    q, k = torch.full((1, 1, 1, 4), 3e38), torch.full((1, 1, 3, 4), -3e38)
    k[0, 0, 0] = 3e38
    one_hot = torch.eye(3)[None, None]
    inputs = (x.to(dtype) for x in (q, k, one_hot))
    out, _ = attend(*inputs, None, AttentionConfig(1.0, 2.0, mode))
    slack = 2 * torch.finfo(dtype).eps
    assert out.double().max() <= g.weight_bounds(2.0, 1.0, 3)[1] * (1 + slack)
    assert out.double().max() >= g.weight_bounds(2.0, 1.0, 3)[1] * (1 - 5 * slack)


def test_small_differences_of_large_logits_survive_bfloat16() -> None:
    """Logits of 48, 48.5 and 49, which are 69 to 71 as exponents to the base 2."""
    config = AttentionConfig(clip=0.97, clip_mode="relative")
    q, k = torch.full((1, 1, 1, 4), 8.0), torch.full((1, 1, 3, 4), 3.0)
    k[0, 0, :, 3] += torch.tensor([0.0, 0.125, 0.25])
    expected = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).softmax(-1)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = (x.to(dtype) for x in (q, k, torch.eye(3)[None, None]))
        out, _ = attend(*inputs, None, config)
        torch.testing.assert_close(out[0, 0, 0].double(), expected, rtol=2e-2, atol=0)


@pytest.mark.parametrize("mode", ["clamp", "tanh", "relative"])
def test_infinite_logits_are_clipped(mode: ClipMode) -> None:
    q, k = torch.full((1, 1, 1, 4), 3e38), torch.full((1, 1, 3, 4), -3e38)
    k[0, 0, 0] = 3e38  # the products overflow to infinity
    weights = attention_weights(q, k, None, AttentionConfig(1.0, 2.0, mode))
    assert weights.max().item() == pytest.approx(g.weight_bounds(2.0, 1.0, 3)[1], rel=1e-6)


@pytest.mark.every_value
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("keys", [7, 600])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e25),
        (torch.float32, 1e30),
        (torch.float32, 7e37),
        (torch.bfloat16, 1e30),
        (torch.float16, 1e4),
        (torch.float64, 1e200),
    ],
    ids=str,
)
def test_norm_shortens_vectors_whose_squares_overflow(
    dtype: torch.dtype, scale: float, keys: int, need_weights: bool
) -> None:
    """By their direction, as any others beside them, forward and backward."""
    config = AttentionConfig(1.0, 3.0, "norm")
    exact, large = [], []
    for x in random_qkv(torch.float64, keys=keys):
        rounded = x.to(dtype).double()
        rounded[0] *= 1e-3  # short ones stay as they are
        exact.append(rounded.clone().requires_grad_())
        rounded[1] *= scale if len(exact) < 3 else 1
        large.append(rounded.to(dtype).requires_grad_())
    with torch.no_grad():
        exact[0][1] *= 1e3  # so that the scale is past any radius for both
        exact[1][1] *= 1e3
    expected, _ = attend(*exact, None, config, True)
    out, _ = attend(*large, None, config, need_weights)
    tolerance = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    for result in (out.double(), expected):
        result.square().sum().backward()
    for ours, theirs in zip(large, exact, strict=True):
        assert ours.grad is not None
        assert ours.grad.isfinite().all()
        torch.testing.assert_close(
            ours.grad[0].double(), theirs.grad[0], rtol=40 * tolerance, atol=40 * tolerance
        )


def test_a_score_vector_whose_sum_overflows_keeps_its_direction() -> None:
    config = AttentionConfig(1.0, 2.0, "norm", "additive")
    q, k, _ = random_qkv()
    vector = torch.randn(3, 11, generator=torch.Generator().manual_seed(2))
    large, usual = (
        attention_weights(q, k, None, config, score_vector=vector * scale) for scale in (1e38, 1e3)
    )
    torch.testing.assert_close(large, usual, rtol=1e-5, atol=1e-7)


def test_infinite_keys_under_norm_and_without_a_clip_give_nan() -> None:
    q, k = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 3, 4)
    k[0, 0, 0] = math.inf
    for config in (AttentionConfig(1.0, 2.0, "norm"), AttentionConfig()):
        assert attention_weights(q, k, None, config).isnan().all()


def test_what_is_masked_does_not_matter() -> None:
    q, k, v = random_qkv()
    mask = random_mask()
    changed = torch.where(mask[:, None, :, None], k, 1e4)
    for config in CONFIGS:
        before, _ = attend(q, k, v, mask, config)
        after, _ = attend(q, changed, v, mask, config)
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_masks_of_two_and_four_dimensions_mean_the_same() -> None:
    q, k, _ = random_qkv()
    mask = random_mask()
    two = attention_weights(q, k, mask, AttentionConfig())
    four = attention_weights(q, k, mask[:, None, None, :].expand(2, 3, 5, 7), AttentionConfig())
    torch.testing.assert_close(two, four, rtol=0, atol=0)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(2, 7),
        torch.ones(2, 5, dtype=torch.bool),
        torch.ones(3, 7, dtype=torch.bool),
        torch.ones(2, 5, 7, dtype=torch.bool),
        torch.ones(2, 2, 5, 7, dtype=torch.bool),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor) -> None:
    q, k, _ = random_qkv()
    with pytest.raises(InputError, match="expected a bool mask"):
        attention_weights(q, k, mask, AttentionConfig())


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    q, k, v = random_qkv()
    config = AttentionConfig()
    with pytest.raises(InputError, match="expected q"):
        attention_weights(q[0], k[0], None, config)
    with pytest.raises(InputError, match="expected q"):
        attention_weights(q, k[..., :4], None, config)
    with pytest.raises(InputError, match="floating dtype"):
        attention_weights(q.long(), k.long(), None, config)
    with pytest.raises(InputError, match="floating dtype"):
        attention_weights(q, k.double(), None, config)
    with pytest.raises(InputError, match="expected v"):
        attend(q, k, v[:, :, :3], None, config)


def test_module_equals_multihead_attention_of_torch() -> None:
    torch.manual_seed(0)
    ours = MultiHeadSelfAttention(12, 3, AttentionConfig())
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    x, mask = torch.randn(2, 7, 12), random_mask()
    expected, expected_weights = theirs(x, x, x, key_padding_mask=~mask, average_attn_weights=False)
    out, weights = ours(x, mask, need_weights=True)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(x, mask)[0], expected, rtol=1e-5, atol=1e-6)
