"""Every backend against a second implementation in float64: outputs, gradients, memory."""

from __future__ import annotations

import itertools
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnpriv.attention import attend, blockwise, choose_backend, functional
from attnpriv.attention.flex import flex_attend
from attnpriv.config import AttentionConfig, ClipMode, Score
from attnpriv.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODES: tuple[ClipMode, ...] = ("clamp", "tanh", "norm", "relative")
SCORES: tuple[Score, ...] = ("dot_product", "additive")
UNCLIPPED = AttentionConfig(0.7)
CLIPPED = [AttentionConfig(0.7, 1.3, mode) for mode in MODES]
CONFIGS = [
    *(AttentionConfig(c.temperature, c.clip, c.clip_mode, score, floor)
      for c in (UNCLIPPED, *CLIPPED) for score in SCORES for floor in (None, 0.3)),
]  # fmt: skip
# Exponents beyond the range of float32, unless the largest of a row is subtracted.
EXTREME = [AttentionConfig(0.01, 5.0, mode) for mode in MODES]
LENGTHS = [(7, 7), (5, 11), (11, 3), (1, 13), (13, 1)]
MASKS = ["none", "padding", "full"]
CASES = [
    *itertools.product(CONFIGS, (torch.float64, torch.float32, torch.bfloat16)),
    *itertools.product(EXTREME, (torch.float64,)),
    *itertools.product(EXTREME[:2], (torch.float32,)),
]

Tensors = dict[str, Tensor | None]


def make_inputs(config: AttentionConfig, lengths: tuple[int, int], mask: str) -> Tensors:
    generator = torch.Generator().manual_seed(lengths[0])

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    queries, keys = lengths
    visible = None
    if mask != "none":
        shape = (3, 1, queries, keys) if mask == "full" else (3, keys)
        visible = torch.rand(shape, generator=generator) < 0.6
        visible[0] = False  # a text, or all queries of it, without visible keys
    return {
        "q": random(3, 2, queries, 5) * 1.5,
        "k": random(3, 2, keys, 5) * 1.5,
        "v": random(3, 2, keys, 7),
        "mask": visible,
        "temperature": None if config.temperature_floor is None else random(3, 2).abs() + 0.3,
        "score_vector": None if config.score == "dot_product" else random(2, 5),
    }


def reference(
    inputs: Tensors, config: AttentionConfig, causal: bool, position_bias: Tensor | None = None
) -> Tensor:
    """From the definition, with nothing but autograd's own operations."""
    q, k, v, w = inputs["q"], inputs["k"], inputs["v"], inputs["score_vector"]
    assert q is not None
    assert k is not None
    assert v is not None
    c, by_norm = config.logit_bound, config.clip is not None and config.clip_mode == "norm"
    if w is not None:
        if by_norm:
            w = w * (c / w.abs().sum(-1, keepdim=True)).clamp(max=1)
        logits = torch.einsum("hd,bhijd->bhij", w, torch.tanh(q[:, :, :, None] + k[:, :, None]))
    else:
        if by_norm:
            r = math.sqrt(c * math.sqrt(q.shape[-1]))
            q, k = (x * (r / x.norm(dim=-1, keepdim=True)).clamp(max=1) for x in (q, k))
        logits = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    if position_bias is not None:
        zero = position_bias.shape[1] // 2
        for i, j in itertools.product(range(logits.shape[2]), range(logits.shape[3])):
            logits[:, :, i, j] += position_bias[:, zero + j - i]
    if config.clip is not None and config.clip_mode == "clamp":
        logits = logits.clamp(-c, c)
    if config.clip is not None and config.clip_mode == "tanh":
        logits = c * torch.tanh(logits / c)
    visible = torch.ones(logits.shape, dtype=torch.bool)
    if (mask := inputs["mask"]) is not None:
        visible = visible & (mask[:, None, None] if mask.ndim == 2 else mask)
    if causal:
        visible = visible.tril()
    if config.clip is not None and config.clip_mode == "relative":
        top = torch.where(visible, logits, -1e9).amax(-1, keepdim=True)
        logits = torch.maximum(logits, top - 2 * c)
    tau = inputs["temperature"]
    logits = logits / (config.temperature if tau is None else tau[:, :, None, None])
    largest = torch.where(visible, logits, -1e9).amax(-1, keepdim=True).detach()
    powers = torch.where(visible, torch.exp(torch.where(visible, logits - largest, 0.0)), 0.0)
    total = powers.sum(-1, keepdim=True)
    return (powers / torch.where(total == 0, 1.0, total)) @ v


def with_gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    direction = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    gradients = torch.autograd.grad(out, leaves, direction.to(out.dtype))
    return [out.detach(), *gradients]


def leaves_of(inputs: Tensors, dtype: torch.dtype) -> tuple[Tensors, list[Tensor]]:
    """The inputs in a dtype, and those of them that are differentiated."""
    made: Tensors = {
        name: x if x is None or x.dtype == torch.bool else x.to(dtype).requires_grad_()
        for name, x in inputs.items()
    }
    return made, [x for x in made.values() if x is not None and x.requires_grad]


def in_float64(inputs: Tensors) -> tuple[Tensors, list[Tensor]]:
    """The same rounded numbers for the reference, as ``leaves_of`` gives them."""
    rounded = {name: None if x is None else x.detach() for name, x in inputs.items()}
    return leaves_of(rounded, torch.float64)


def tolerance(config: AttentionConfig, dtype: torch.dtype, of_gradient: bool) -> float:
    """Relative to the norm of a whole tensor.

    A handful of roundings cost half an eps each, and those of an exponent count as often as it is
    large: up to 1.3/0.3 here, or 5/0.01. In bfloat16 a logit near a clip with an edge may fall on
    its other side, where the gradient is another.
    """
    if dtype != torch.bfloat16:
        return (
            (20 + 4 * config.logit_bound / config.temperature if config.clip else 20)
            * (100 if of_gradient else 10)
            * torch.finfo(dtype).eps
        )
    has_edge = config.clip is not None and (
        config.clip_mode in ("clamp", "relative")
        or (config.clip_mode, config.score) == ("norm", "dot_product")
    )
    return 0.8 if of_gradient and has_edge else 0.06


def assert_close(
    got: list[Tensor], expected: list[Tensor], config: AttentionConfig, dtype: torch.dtype
) -> None:
    for number, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        difference = float((ours.double() - theirs).norm())
        allowed = tolerance(config, dtype, of_gradient=number > 0)
        assert difference <= allowed * (float(theirs.norm()) + 0.1), number


def every_input(
    config: AttentionConfig, dtype: torch.dtype
) -> Iterator[tuple[Tensors, list[Tensor], bool, list[Tensor]]]:
    """Inputs, those of them that are differentiated, whether causal, and the reference's answer."""
    for lengths, mask, causal in itertools.product(LENGTHS, MASKS, (False, True)):
        inputs, leaves = leaves_of(make_inputs(config, lengths, mask), dtype)
        wide, wide_leaves = in_float64(inputs)
        yield inputs, leaves, causal, with_gradients(reference(wide, config, causal), wide_leaves)


@pytest.mark.every_value
@pytest.mark.parametrize(("config", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("block_bytes", [blockwise.BLOCK_BYTES, 300])
def test_every_path_equals_the_reference(
    config: AttentionConfig,
    dtype: torch.dtype,
    block_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With blocks that hold everything, and with blocks of a few rows."""
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", block_bytes)
    for inputs, leaves, causal, expected in every_input(config, dtype):
        for need_weights in (False, True):
            q, k, v, visible, tau, w = inputs.values()
            out, _ = attend(
                q, k, v, visible, config, need_weights,
                causal=causal, temperature=tau, score_vector=w,
            )  # fmt: skip
            assert_close(with_gradients(out, leaves), expected, config, dtype)


HALVES = [config for config in CONFIGS if config.clip is None or config.clip_mode != "relative"]


@pytest.mark.every_value
@pytest.mark.parametrize("config", HALVES, ids=str)
@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_equals_the_reference_on_every_cpu(
    config: AttentionConfig, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the CPU multiplies it or not, and in float32 where it does not."""
    monkeypatch.setattr(functional, "has_native_bfloat16", lambda: native)
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", 300)
    dtypes, compute = set(), functional.blockwise_attention

    def spy(*inputs: Any) -> Tensor:
        dtypes.add(inputs[-1].dtype)
        return compute(*inputs)

    monkeypatch.setattr(functional, "blockwise_attention", spy)
    monkeypatch.setattr(functional, "choose_backend", lambda *_: "blockwise")
    for inputs, leaves, causal, expected in every_input(config, torch.bfloat16):
        q, k, v, visible, tau, w = inputs.values()
        out, _ = attend(q, k, v, visible, config, causal=causal, temperature=tau, score_vector=w)
        assert_close(with_gradients(out, leaves), expected, config, torch.bfloat16)
    assert dtypes == {torch.bfloat16 if native else torch.float32}


@pytest.mark.parametrize("config", CLIPPED, ids=str)
@pytest.mark.parametrize("block_bytes", [blockwise.BLOCK_BYTES, 300])
def test_how_the_inputs_lie_in_memory_does_not_matter(
    config: AttentionConfig, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads beside each other, as projections leave them, and gradients that come so."""
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", block_bytes)
    for lengths in LENGTHS:
        results = []
        for move in (torch.clone, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)):
            inputs = make_inputs(config, lengths, "padding")
            moved = {n: move(x) if n in ("q", "k", "v") else x for n, x in inputs.items()}
            inputs, leaves = leaves_of(moved, torch.float64)
            q, k, v, visible, *_ = inputs.values()
            out, _ = attend(q, k, v, visible, config)
            results.append([out, *torch.autograd.grad(move(out).cos().sum(), leaves)])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("need_weights", [False, True])
def test_keys_that_share_the_largest_logit_share_its_gradient(
    score: Score, need_weights: bool
) -> None:
    config = AttentionConfig(0.7, 1.3, "relative", score)
    inputs = make_inputs(config, (5, 6), "padding")
    k, visible = inputs["k"], inputs["mask"]
    assert k is not None
    assert visible is not None
    k[:, :, 3:], visible[:, 3:] = k[:, :, :3], visible[:, :3]  # every key twice
    inputs, leaves = leaves_of(inputs, torch.float64)
    expected = with_gradients(reference(inputs, config, causal=False), leaves)
    q, k, v, visible, _, w = inputs.values()
    out, _ = attend(q, k, v, visible, config, need_weights, score_vector=w)

    assert_close(with_gradients(out, leaves), expected, config, torch.float64)


BIASED = [
    (config, dtype)
    for config, dtype in CASES
    if config.score == "dot_product" and (config.clip is None or config.clip_mode != "norm")
]


@pytest.mark.every_value
@pytest.mark.parametrize(("config", "dtype"), BIASED, ids=str)
@pytest.mark.parametrize("block_bytes", [blockwise.BLOCK_BYTES, 300])
@pytest.mark.parametrize("spare", [0, 4])
def test_a_bias_by_position_equals_the_reference(
    config: AttentionConfig,
    dtype: torch.dtype,
    block_bytes: int,
    spare: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As above, for as many distances as there are and for more; nothing flows to the bias."""
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", block_bytes)
    for lengths, mask, causal in itertools.product(LENGTHS, MASKS, (False, True)):
        inputs, leaves = leaves_of(make_inputs(config, lengths, mask), dtype)
        generator = torch.Generator().manual_seed(2)
        bias = torch.randn(2, 2 * (max(lengths) + spare) - 1, generator=generator).to(dtype)
        wide, wide_leaves = in_float64(inputs)
        expected = reference(wide, config, causal, bias.double())
        expected_all = with_gradients(expected, wide_leaves)
        q, k, v, visible, tau, _ = inputs.values()
        bias.requires_grad_()
        for need_weights in (False, True):
            out, _ = attend(
                q, k, v, visible, config, need_weights,
                causal=causal, temperature=tau, position_bias=bias,
            )  # fmt: skip
            assert_close(with_gradients(out, leaves), expected_all, config, dtype)
            assert torch.autograd.grad(out.sum(), bias, allow_unused=True) == (None,)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (
            AttentionConfig(),
            (2, 12),
            r"expected position_bias of shape \[2, L\] with an odd L >= 13, got \[2, 12\]",
        ),
        (AttentionConfig(), (2, 11), r"an odd L >= 13, got \[2, 11\]"),
        (AttentionConfig(), (3, 13), r"got \[3, 13\]"),
        (AttentionConfig(), (13,), r"got \[13\]"),
        (CLIPPED[2], (2, 13), "expected no position_bias .* score dot_product and clip_mode norm"),
        (AttentionConfig(score="additive"), (2, 13), "one with score additive and clip_mode none"),
    ],
)
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_bias_that_does_not_fit_is_refused(
    config: AttentionConfig, shape: tuple[int, ...], message: str, need_weights: bool
) -> None:
    q, k, v, _, _, w = make_inputs(config, (5, 7), "none").values()
    bias = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(InputError, match=message):
        attend(q, k, v, None, config, need_weights, score_vector=w, position_bias=bias)


@pytest.mark.every_value
@pytest.mark.parametrize("config", CLIPPED[:2], ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True])
def test_flex_equals_the_reference(config: AttentionConfig, mask: str, causal: bool) -> None:
    """By FlexAttention's own uncompiled path: what a compiler makes of it needs a GPU to test."""
    for lengths, floor in itertools.product(LENGTHS, (None, 0.3)):
        learned = AttentionConfig(0.7, 1.3, config.clip_mode, temperature_floor=floor)
        inputs = make_inputs(learned, lengths, mask)
        q, k, v, visible, tau, _ = inputs.values()
        assert q is not None
        assert k is not None
        assert v is not None
        if visible is not None and visible.ndim == 2:
            visible = visible[:, None, None]
        per_head = config.temperature if tau is None else tau[:, :, None, None]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            out = flex_attend(q, k, v, visible, learned, causal, per_head, compiled=False)
        expected = [reference(inputs, learned, causal)]
        assert_close([out], expected, learned, torch.float32)


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention compiles with g++ on a CPU")
def test_compiled_flex_equals_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU: float32 and forward only, which is all that PyTorch gets right there."""
    # What was compiled for another processor, or for this one without ATEN_CPU_CAPABILITY, would be
    # taken from the cache and fail.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    config = AttentionConfig(0.7, 1.3, "tanh", temperature_floor=0.3)
    inputs = make_inputs(config, (17, 19), "full")
    q, k, v, visible, tau, _ = (
        x.float() if x is not None and x.is_floating_point() else x for x in inputs.values()
    )
    assert q is not None
    assert k is not None
    assert v is not None
    assert tau is not None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        out = flex_attend(q, k, v, visible, config, True, tau[:, :, None, None])
    assert_close([out], [reference(inputs, config, True)], config, torch.float32)


@pytest.mark.exhaustive
def test_the_blockwise_kernel_passes_gradcheck() -> None:
    for mode, score in itertools.product(MODES, SCORES):
        config = AttentionConfig(0.7, 1.3, mode, score, 0.3)
        inputs, leaves = leaves_of(make_inputs(config, (3, 5), "none"), torch.float64)

        def call(q: Tensor, k: Tensor, v: Tensor, tau: Tensor, *w: Tensor) -> Tensor:
            vector = w[0] if w else None
            return attend(q, k, v, None, config, temperature=tau, score_vector=vector)[0]  # noqa: B023

        assert torch.autograd.gradcheck(call, leaves), inputs


@pytest.mark.parametrize("floor", [None, 0.3])
@pytest.mark.parametrize("mask", MASKS)
def test_pieces_of_a_batch_give_what_the_batch_gives(floor: float | None, mask: str) -> None:
    """Without gradients the fused kernel gets some texts at a time."""
    config = AttentionConfig(0.7, 1.3, "norm", temperature_floor=floor)
    inputs, _ = leaves_of(make_inputs(config, (131, 131), mask), torch.float32)
    q, k, v, visible, tau, _ = inputs.values()
    assert q is not None
    q, k, v = (x.repeat(120, 1, 1, 1) for x in (q, k, v) if x is not None)
    visible = None if visible is None else visible.repeat(120, *[1] * (visible.ndim - 1))
    tau = None if tau is None else tau.repeat(120, 1)
    assert q.numel() * 4 > 1.5 * functional.PIECE_BYTES
    whole, _ = attend(q, k, v, visible, config, causal=True, temperature=tau)
    with torch.no_grad():
        pieces, _ = attend(q, k, v, visible, config, causal=True, temperature=tau)
    torch.testing.assert_close(pieces, whole.detach())  # other shapes may be summed otherwise


@pytest.mark.every_value
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("need_weights", [False, True])
def test_autocast_does_not_round_what_is_clipped(
    config: AttentionConfig, need_weights: bool
) -> None:
    inputs, leaves = leaves_of(make_inputs(config, (5, 11), "padding"), torch.float32)
    q, k, v, visible, tau, w = inputs.values()
    assert q is not None
    assert k is not None
    assert v is not None

    def call() -> Tensor:
        out, weights = attend(
            q, k, v, visible, config, need_weights, temperature=tau, score_vector=w
        )
        return out if weights is None else weights

    plain = with_gradients(call(), leaves[:2])
    with torch.autocast("cpu", torch.bfloat16):
        out = call()
    for ours, theirs in zip(with_gradients(out, leaves[:2]), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_dropped_gain_gradient_costs_nothing_else() -> None:
    """A fixed temperature handed in per head gives the result of the number."""
    config = AttentionConfig(0.7, 1.3, "tanh")
    q, k, v, *_ = make_inputs(config, (5, 11), "none").values()
    assert q is not None
    assert k is not None
    assert v is not None
    fixed, _ = attend(q, k, v, None, config)
    given, _ = attend(q, k, v, None, config, temperature=torch.full((2,), 0.7))
    torch.testing.assert_close(given, fixed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "device", "dtype", "keys", "expected"),
    [
        (UNCLIPPED, CPU, torch.float32, 64, "fused"),
        (UNCLIPPED, CUDA, torch.bfloat16, 4096, "fused"),
        (CLIPPED[0], CPU, torch.float32, 512, "blockwise"),
        (CLIPPED[1], CPU, torch.bfloat16, 512, "blockwise"),
        (CLIPPED[0], CUDA, torch.bfloat16, 512, "flex"),
        (CLIPPED[1], CUDA, torch.float32, 64, "flex"),
        (CLIPPED[3], CUDA, torch.float32, 64, "blockwise"),
        (CLIPPED[3], CPU, torch.bfloat16, 64, "blockwise"),
        (CLIPPED[2], CPU, torch.float32, 512, "fused"),
        (CLIPPED[2], CPU, torch.float32, 64, "blockwise"),
        (CLIPPED[2], CPU, torch.bfloat16, 511, "blockwise"),
        (CLIPPED[2], CPU, torch.bfloat16, 512, "fused"),
        (CLIPPED[2], CUDA, torch.bfloat16, 64, "fused"),
        (AttentionConfig(score="additive"), CUDA, torch.float32, 64, "blockwise"),
        (CLIPPED[0], torch.device("mps"), torch.float32, 64, "blockwise"),
    ],
)
def test_the_choice_of_backend(
    config: AttentionConfig, device: torch.device, dtype: torch.dtype, keys: int, expected: str
) -> None:
    assert choose_backend(config, device, False, dtype, keys) == expected
    assert choose_backend(config, device, True, dtype, keys) == "eager"


def peak_megabytes(config: AttentionConfig, tokens: int, need_weights: bool) -> float:
    """How far one pass forward and backward raises what PyTorch's allocator has given out."""
    q, k, v = (torch.randn(1, 2, tokens, 16, requires_grad=True) for _ in range(3))
    w = torch.randn(2, 16) if config.score == "additive" else None
    with torch.profiler.profile(profile_memory=True) as profile:
        out, _ = attend(q, k, v, None, config, need_weights, score_vector=w)
        out.sum().backward()
    events = profile.profiler.kineto_results.events()
    steps = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(steps)) / 2**20


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", MODES)
def test_no_square_tensor_is_made_unless_weights_are_asked_for(mode: ClipMode) -> None:
    """One float32 [1, 2, 4096, 4096] has 128 MB; inputs, output and gradients together have 4."""
    config = AttentionConfig(1.0, 2.0, mode)
    assert peak_megabytes(config, 4096, need_weights=False) < 32
    assert peak_megabytes(config, 4096, need_weights=True) > 128  # such a tensor would be seen


@pytest.mark.parametrize("mode", MODES)
def test_additive_scores_make_no_tensor_of_all_pairs(mode: ClipMode) -> None:
    """One float32 [1, 2, 512, 512, 16] has 32 MB."""
    config = AttentionConfig(1.0, 2.0, mode, "additive")
    assert peak_megabytes(config, 512, need_weights=False) < 16
    assert peak_megabytes(config, 512, need_weights=True) > 32


def test_a_score_vector_belongs_to_additive_scores_alone() -> None:
    q = torch.ones(1, 2, 3, 5)
    with pytest.raises(InputError, match="score_vector with additive scores only, got one"):
        attend(q, q, q, None, UNCLIPPED, score_vector=torch.ones(2, 5))
    additive = AttentionConfig(score="additive")
    with pytest.raises(InputError, match="additive scores only, got additive scores without one"):
        attend(q, q, q, None, additive)
    with pytest.raises(InputError, match=r"expected score_vector of shape \[2, 5\]"):
        attend(q, q, q, None, additive, score_vector=torch.ones(2, 4))


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 2, 1)])
def test_temperatures_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    q = torch.ones(1, 2, 3, 5)
    with pytest.raises(InputError, match="expected temperature"):
        attend(q, q, q, None, UNCLIPPED, temperature=torch.ones(shape))
