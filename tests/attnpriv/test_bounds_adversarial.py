"""Attempts to break every bound: all vertices, gradient ascent through the layer, rounding.

Shapes: H heads, each an attempt of its own; B = 2 inputs where two rows are compared; n keys.
"""

from __future__ import annotations

import itertools
import math
import warnings
from functools import partial
from typing import Literal, NamedTuple

import pytest
import torch
from torch import Tensor

from attnpriv import guarantees as g
from attnpriv.attention import HardenedAttention, attend, functional
from attnpriv.attention.flex import flex_attend
from attnpriv.config import AttentionConfig, ClipMode, Score

Backend = Literal["eager", "blockwise", "fused", "flex"]
MODES: tuple[ClipMode, ...] = ("clamp", "tanh", "norm", "relative")
SCORES: tuple[Score, ...] = ("dot_product", "additive")
HALVES = (torch.bfloat16, torch.float16)


def choose(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """Make ``attend`` take one backend, whatever it would have chosen."""
    monkeypatch.setattr(functional, "choose_backend", lambda *_: backend)
    # What a compiler makes of FlexAttention needs a GPU; this is PyTorch's own reference of it.
    monkeypatch.setattr(functional, "flex_attend", partial(flex_attend, compiled=False))


# --- all vertices of the logit cube -----------------------------------------------------------

GRID = list(itertools.product((0.1, 1.0, 2.0, 6.0), (0.5, 1.0, 3.0), range(1, 9)))


def vertex_rows(c: float, tau: float, n: int) -> Tensor:
    corners = torch.tensor(list(itertools.product((-c, c), repeat=n)), dtype=torch.float64)
    return torch.softmax(corners / tau, dim=-1)


def exactly(value: float) -> object:
    return pytest.approx(value, rel=1e-12, abs=1e-15)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_weight_mass_and_lift_are_attained_at_a_vertex(c: float, tau: float, n: int) -> None:
    rows = vertex_rows(c, tau, n)
    assert (float(rows.min()), float(rows.max())) == tuple(map(exactly, g.weight_bounds(c, tau, n)))
    for k in range(1, n + 1):
        mass = float(rows[:, :k].sum(-1).max())
        assert mass == exactly(g.mass_bound(c, tau, n, k))
        assert mass * n / k == exactly(g.lift_bound(c, tau, n, k))


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_total_variation_and_output_change_are_attained_for_even_n(
    c: float, tau: float, n: int
) -> None:
    rows = vertex_rows(c, tau, n)
    bound, largest = g.total_variation_bound(c, tau), float(torch.cdist(rows, rows, p=1).max() / 2)
    # Half of the keys at one end of the cube, the other half at the other, and the reverse.
    half, a = n // 2, math.exp(2 * c / tau)
    assert largest == exactly(half * a / (half * a + n - half) - half / (half + (n - half) * a))
    assert largest <= bound * (1 + 1e-12)
    assert g.row_release_scale(c, tau, 1.0) * (1 + 1e-12) >= 2 * largest
    outputs = rows[:, :half].sum(-1)  # values of 1 and 0, whose diameter is 1
    change = float(outputs.max() - outputs.min())
    assert change <= g.output_change_bound(c, tau, 1.0) * (1 + 1e-12)
    if n % 2 == 0:
        assert largest == exactly(bound)
        assert change == exactly(bound)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_selection_epsilon_is_attained_by_a_pair_of_vertices(c: float, tau: float, n: int) -> None:
    logs = vertex_rows(c, tau, n).log()
    largest = float((logs[:, None] - logs).max())
    assert largest == exactly(g.selection_epsilon(c, tau, n))
    # ρ-zCDP from bounded range: its Rényi divergence of order 2 is at most 2ρ.
    renyi = torch.logsumexp(2 * logs[:, None] - logs, dim=-1).max()
    assert renyi <= 2 * g.selection_rho(c, tau) * (1 + 1e-12) + 1e-12


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), [case for case in GRID if case[2] > 1])
def test_single_logit_total_variation_is_attained_inside_the_cube(
    c: float, tau: float, n: int
) -> None:
    bound = g.single_logit_total_variation_bound(c, tau)
    rows = vertex_rows(c, tau, n).unflatten(0, (2, -1))  # the first logit at -c, and at c
    assert (rows[0] - rows[1]).abs().sum(-1).max() / 2 <= bound * (1 + 1e-12)
    others = -tau * math.log(n - 1)  # together they weigh as much as one key of logit 0
    if -others <= c:
        ends = torch.full((2, n), others, dtype=torch.float64)
        ends[:, 0] = torch.tensor([-c, c], dtype=torch.float64)
        low, high = torch.softmax(ends / tau, dim=-1)
        assert float((low - high).abs().sum() / 2) == exactly(bound)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_the_jacobian_bound_holds_at_vertices_and_is_attained_for_two_equal_keys(
    c: float, tau: float, n: int
) -> None:
    rows = torch.cat([vertex_rows(c, tau, n), torch.full((1, n), 1 / n, dtype=torch.float64)])
    jacobians = (torch.diag_embed(rows) - rows[:, :, None] * rows[:, None]) / tau
    largest = float(torch.linalg.matrix_norm(jacobians, ord=2).max())
    assert largest <= g.softmax_jacobian_bound(c, tau, n) * (1 + 1e-12) + 1e-15
    if n == 2:
        assert largest == exactly(g.softmax_jacobian_bound(c, tau, n))


# --- gradient ascent on queries, keys, score vector and temperature -----------------------------

GOALS = ("weight", "smallest weight", "mass", "total variation", "one logit", "selection")
RESTARTS, KEYS, SENSITIVE, WIDTH = 5, 6, 2, 5
HEADS = len(GOALS) * RESTARTS
# Under relative the largest logit changes hands on the way.
STEPS = {"clamp": 80, "tanh": 80, "norm": 80, "relative": 200}


def limits(mode: ClipMode, c: float, tau: float, excess: float = 0.0) -> Tensor:
    """The bound of each goal, [goals, 1], where rounding adds so much to 2c/τ."""
    c = c + tau * excess / 2
    low, high = g.weight_bounds(c, tau, KEYS)
    one_logit = g.single_logit_total_variation_bound
    if mode == "relative":  # under which a logit can move others
        one_logit = g.total_variation_bound
    bounds = [
        high,
        1 / low,
        g.mass_bound(c, tau, KEYS, SENSITIVE),
        g.total_variation_bound(c, tau),
        one_logit(c, tau),
        g.selection_epsilon(c, tau, KEYS),
    ]
    return torch.tensor(bounds, dtype=torch.float64)[:, None]


def reached(rows: Tensor) -> Tensor:
    """What the rows [2, H, n] of two inputs reach of each goal, [goals, restarts]."""
    one, two = rows.unflatten(1, (len(GOALS), RESTARTS))
    variation = (one - two).abs().sum(-1) / 2
    return torch.stack(
        [
            one[0, :, 0],
            1 / one[1, :, 0],
            one[2, :, :SENSITIVE].sum(-1),
            variation[3],
            variation[4],
            (one[5, :, 0] / two[5, :, 0]).log(),
        ]
    )


class Attempt(NamedTuple):
    mode: ClipMode
    score: Score
    backend: Backend
    dtype: torch.dtype
    learned: bool


ATTEMPTS = [
    *(Attempt(mode, score, backend, dtype, learned)
      for mode in MODES for score in SCORES
      for backend, dtype, learned in (("eager", torch.float64, False),
                                      ("blockwise", torch.float32, False),
                                      ("blockwise", torch.float32, True))),
    Attempt("norm", "dot_product", "fused", torch.float32, False),
    Attempt("norm", "dot_product", "fused", torch.float32, True),
]  # fmt: skip


class Adversary:
    """Ascends each goal with its own heads, by Adam on whatever the layer is made from.

    It starts inside the clip, as ``clamp`` gives no gradient outside. The layer itself is what
    projects: it clips whatever it is given.
    """

    def __init__(self, layer: HardenedAttention, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.layer = layer.to(dtype)
        self.q = (0.3 * torch.randn(2, HEADS, 1, WIDTH, generator=generator)).to(dtype)
        self.k = (0.3 * torch.randn(2, HEADS, KEYS, WIDTH, generator=generator)).to(dtype)
        self.values = torch.eye(KEYS, dtype=dtype).expand(2, HEADS, KEYS, KEYS)
        # The heads of this goal may change one logit between the inputs: one key and no query.
        goal = torch.arange(HEADS) // RESTARTS == GOALS.index("one logit")
        self.one_query = goal[:, None, None]
        self.one_key = self.one_query & (torch.arange(KEYS) > 0)[:, None]

    def rows(self, need_weights: bool) -> Tensor:
        """The weights [2, H, n], as returned or as the output reveals them."""
        q = torch.stack([self.q[0], torch.where(self.one_query, self.q[0], self.q[1])])
        k = torch.stack([self.k[0], torch.where(self.one_key, self.k[0], self.k[1])])
        out, weights = self.layer(q, k, self.values, need_weights=need_weights)
        rows: Tensor = out if weights is None else weights
        return rows.squeeze(2).double()

    def climb(self, steps: int, need_weights: bool) -> Tensor:
        """The most that was reached on the way, [goals, restarts]."""
        inputs = [self.q.requires_grad_(), self.k.requires_grad_()]
        optimiser = torch.optim.Adam([*inputs, *self.layer.parameters()], lr=0.4)
        most = torch.full((len(GOALS), RESTARTS), -math.inf, dtype=torch.float64)
        slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
        for _ in range(steps):
            now = reached(self.rows(need_weights))
            most = torch.maximum(most, now.detach())
            optimiser.zero_grad()
            (-now[:5].log().sum() - now[5].sum()).backward()
            optimiser.step()
            slower.step()
        return most


@pytest.mark.every_value
@pytest.mark.parametrize(("c", "tau"), [(2.0, 1.0), (5.0, 2.5)])
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_gradient_ascent_reaches_each_bound_and_breaks_none(
    monkeypatch: pytest.MonkeyPatch, attempt: Attempt, c: float, tau: float
) -> None:
    """Where τ is learned, the ascent trains it too, and the bounds are those at the floor."""
    choose(monkeypatch, attempt.backend)
    start, floor = (tau + 0.5, tau) if attempt.learned else (tau, None)
    config = AttentionConfig(start, c, attempt.mode, attempt.score, floor)
    torch.manual_seed(0)
    adversary = Adversary(HardenedAttention(config, HEADS, WIDTH), attempt.dtype, seed=1)
    most = adversary.climb(STEPS[attempt.mode], need_weights=attempt.backend == "eager")
    excess = wide_rounding(attempt.dtype, 2 * c / tau, KEYS, WIDTH)
    assert (most <= limits(attempt.mode, c, tau, excess) * math.exp(excess)).all()
    # One logit: c/τ >= ln(n-1) here, so that this bound is tight as well.
    tightness = dict(
        zip(GOALS, (most / limits(attempt.mode, c, tau)).amax(1).tolist(), strict=True)
    )
    assert min(tightness.values()) >= 0.95, tightness


@pytest.mark.parametrize("floor", [1e-3, 0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("mode", MODES)
def test_no_training_takes_a_temperature_below_its_floor(
    monkeypatch: pytest.MonkeyPatch, mode: ClipMode, floor: float
) -> None:
    config = AttentionConfig(1.0, 3 * floor, mode, temperature_floor=floor)
    layer = HardenedAttention(config, 3, WIDTH)
    assert layer.raw_temperature is not None
    optimiser = torch.optim.SGD(layer.parameters(), lr=1e4)
    layer.raw_temperature.weight.sum().backward()
    optimiser.step()
    assert (layer.raw_temperature.weight < -9e3).all()
    copy = HardenedAttention(config, 3, WIDTH)
    copy.load_state_dict(layer.state_dict())
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for trained in (layer.to(dtype), copy.to(dtype)):
            assert all(floor <= tau <= floor * (1 + 1e-6) for tau in trained.temperatures())
        q, k = torch.ones(1, 3, 1, WIDTH, dtype=dtype), torch.ones(1, 3, KEYS, WIDTH, dtype=dtype)
        k[:, :, 1:] = -1
        backends: tuple[Backend, ...] = ("eager", "blockwise")
        for backend in backends:
            rows = read(monkeypatch, backend, 100 * q, k, layer)
            slack = Slack(dtype, backend, 6.0, KEYS, WIDTH)
            assert rows.max() <= g.weight_bounds(3 * floor, floor, KEYS)[1] * slack.factor


# --- rounding: the slack of docs/guarantees.md ---------------------------------------------------


def wide_rounding(dtype: torch.dtype, x: float, keys: int, width: int) -> float:
    """What the arithmetic in float32, or float64, adds to the logarithm of a ratio of weights."""
    eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    return ((width + 4) * x + keys + 44) * eps


class Slack:
    """How far weights may exceed their bounds, as docs/guarantees.md states and proves it."""

    def __init__(
        self, dtype: torch.dtype, backend: Backend, x: float, keys: int, width: int
    ) -> None:
        wide = wide_rounding(dtype, x, keys, width)
        half = torch.finfo(dtype).eps / 2 if dtype in HALVES else 0.0
        # Read off an output, weights are rounded once more than where they are returned.
        roundings = 1 if backend == "eager" else 2
        self.log_ratio = wide + roundings * math.log((1 + half) / (1 - half))
        self.factor = math.exp(wide) * (1 + half) * ((1 + half) / (1 - half)) ** (roundings - 1)


def read(
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    q: Tensor,
    k: Tensor,
    layer: HardenedAttention,
) -> Tensor:
    """The weights [..., n] in float64: as returned, or read off an output by one-hot values.

    With the roundings of bfloat16 on every CPU, also where ``attend`` would do without them.
    """
    choose(monkeypatch, backend)
    monkeypatch.setattr(functional, "has_native_bfloat16", lambda: True)
    n = k.shape[2]
    one_hot = torch.eye(n, dtype=q.dtype).expand(*k.shape[:2], n, n)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        out, weights = layer(q, k, one_hot, need_weights=backend == "eager")
    rows: Tensor = out if weights is None else weights
    return rows.double()


def saturating(
    layer: HardenedAttention, keys: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Queries and keys that push logits to both ends of the clip, by all sorts of margins."""
    shape = (8, layer.heads, keys, 1)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, 1.0, -1.0)
    sign[:, :, 0], sign[:, :, 1:2] = 1.0, -1.0
    size = sign * 10 ** torch.empty(shape).uniform_(-0.3, 2.5, generator=generator)
    if layer.score_vector is not None:
        vector = layer.score_vector.weight
        return torch.zeros(8, layer.heads, 1, width), vector.sign()[:, None] * size
    direction = torch.randn(8, layer.heads, 1, width, generator=generator)
    return direction * 10 ** torch.rand(8, layer.heads, 1, 1, generator=generator), direction * size


def random_layer(
    mode: ClipMode, score: Score, learned: bool, width: int, generator: torch.Generator
) -> HardenedAttention:
    """Eight heads with a random clip, temperatures and score vectors that can reach the clip."""
    c, tau = (float(torch.rand((), generator=generator)) * 7 + 0.2 for _ in range(2))
    floor = tau / 2 if learned else None
    layer = HardenedAttention(AttentionConfig(tau, c, mode, score, floor), 8, width)
    with torch.no_grad():
        if layer.raw_temperature is not None:
            layer.raw_temperature.weight.uniform_(-20, 1, generator=generator)
        if layer.score_vector is not None:
            vectors = torch.randn(8, width, generator=generator)
            sizes = c * 10 ** torch.rand(8, 1, generator=generator)
            layer.score_vector.weight.copy_(vectors / vectors.abs().sum(-1, keepdim=True) * sizes)
    return layer


OTHERS = {"clamp": ("flex",), "tanh": ("flex",), "norm": ("fused",), "relative": ()}
CASES = [
    (mode, score, learned, backend)
    for mode, score, learned in itertools.product(MODES, SCORES, (False, True))
    for backend in ("eager", "blockwise", *OTHERS[mode] * (score == "dot_product"))
]


@pytest.mark.every_value
@pytest.mark.parametrize(("mode", "score", "learned", "backend"), CASES)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
def test_rounding_adds_no_more_than_the_stated_slack(
    monkeypatch: pytest.MonkeyPatch,
    mode: ClipMode,
    score: Score,
    learned: bool,
    backend: Backend,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = ((6, 16), (5, 64)) if backend == "flex" else ((6, 16), (5, 64), (2, 3), (131, 8)) * 2
    for keys, width in sizes:
        layer = random_layer(mode, score, learned, width, generator)
        q, k = (x.to(dtype) for x in saturating(layer, keys, width, generator))
        layer = layer.to(dtype)
        rows = read(monkeypatch, backend, q, k, layer).squeeze(2)
        # Beside float64 inputs a learned τ is a float32 number, and in FlexAttention any τ is.
        single = dtype == torch.float64 and (learned or backend == "flex")
        wide = torch.float32 if single else dtype
        for head, tau in enumerate(layer.temperatures()):
            slack = Slack(wide, backend, 2 * (layer.config.clip or 0) / tau, keys, width)
            check_rows(rows[:, head], layer.config.clip or 0, tau, slack, dtype)


BIASED: tuple[ClipMode, ...] = ("clamp", "tanh", "relative")


@pytest.mark.every_pair
@pytest.mark.parametrize("mode", BIASED)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("backend", ["eager", "blockwise"])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
def test_no_bias_by_position_breaks_a_bound(
    monkeypatch: pytest.MonkeyPatch,
    mode: ClipMode,
    learned: bool,
    backend: Backend,
    dtype: torch.dtype,
) -> None:
    """The clip comes after it, however large it is, and it alone reaches both ends."""
    generator = torch.Generator().manual_seed(0)
    tightness = []
    for keys, size in itertools.product((2, 7), (1.0, 1e3)):
        layer = random_layer(mode, "dot_product", learned, 16, generator)
        bias = size * torch.randn(8, 2 * keys + 3, generator=generator)
        layer.register_buffer("position_bias", bias)
        q, k = (torch.randn(8, 8, keys, 16, generator=generator).to(dtype) for _ in "qk")
        layer = layer.to(dtype)
        rows = read(monkeypatch, backend, q, k, layer)
        single = dtype == torch.float64 and learned  # a learned τ is a float32 number
        for head, tau in enumerate(layer.temperatures()):
            x = 2 * (layer.config.clip or 0) / tau
            slack = Slack(torch.float32 if single else dtype, backend, x, keys, 16)
            of_head = rows[:, head].flatten(0, 1)
            check_rows(of_head, layer.config.clip or 0, tau, slack, dtype)
            tightness.append(float(of_head.max()) / g.weight_bounds(x / 2, 1.0, keys)[1])
    assert max(tightness) >= 0.99


def check_rows(rows: Tensor, c: float, tau: float, slack: Slack, dtype: torch.dtype) -> None:
    """Every row [B, n] keeps its bounds, up to the slack."""
    n, k = rows.shape[1], max(1, rows.shape[1] // 3)
    low, high = g.weight_bounds(c, tau, n)
    assert rows.max() <= high * slack.factor
    assert rows[:, :k].sum(-1).max() <= g.mass_bound(c, tau, n, k) * slack.factor
    if dtype == torch.float16 and low < 2**-13:
        return  # its numbers below 2^-14 have fewer digits
    assert rows.min() >= low / slack.factor**2
    assert (rows.amax(-1) / rows.amin(-1)).log().max() <= 2 * c / tau + slack.log_ratio
    rows = rows / rows.sum(-1, keepdim=True)
    variation = torch.cdist(rows, rows, p=1).max() / 2
    assert variation <= g.total_variation_bound(c + tau * slack.log_ratio / 2, tau) + 1e-15
    ratio = (rows.amax(0) / rows.amin(0)).log().max()
    assert ratio <= g.selection_epsilon(c + tau * slack.log_ratio / 2, tau, n)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("backend", ["eager", "blockwise", "fused"])
def test_the_slack_of_half_precision_is_below_two_eps(dtype: torch.dtype, backend: Backend) -> None:
    """The factor that ``attend`` states, for rows and widths as long as anybody's."""
    slack = Slack(dtype, backend, x=8.0, keys=1024, width=128)
    assert slack.factor <= 1 + 2 * torch.finfo(dtype).eps


def test_half_precision_needs_a_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded weights do exceed their bounds: the slack is not there for nothing."""
    eps, excess = torch.finfo(torch.bfloat16).eps, []
    for c in torch.linspace(0.5, 2.5, 101).tolist():
        layer = HardenedAttention(AttentionConfig(1.0, c), 1, 4)
        k = torch.full((1, 1, 4, 4), -9.0, dtype=torch.bfloat16)
        k[:, :, 0] = 9.0
        rows = read(monkeypatch, "eager", -k[:, :, 1:2], k, layer)
        excess.append(float(rows.max()) / g.weight_bounds(c, 1.0, 4)[1] - 1)
    assert eps / 4 < max(excess) <= eps / 2 * (1 + 1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_exponents_beyond_the_range_of_float32_keep_the_bounds(
    monkeypatch: pytest.MonkeyPatch, mode: ClipMode, dtype: torch.dtype
) -> None:
    """2c/τ = 72: the kernel subtracts the largest of a row first."""
    generator = torch.Generator().manual_seed(0)
    for learned in (False, True):
        config = AttentionConfig(0.1, 3.6, mode, temperature_floor=0.05 if learned else None)
        layer = HardenedAttention(config, 8, 16).to(dtype)
        q, k = (x.to(dtype) for x in saturating(layer, 6, 16, generator))
        rows = read(monkeypatch, "blockwise", q, k, layer).squeeze(2)
        tau = min(layer.temperatures())
        slack = Slack(dtype, "blockwise", 7.2 / tau, 6, 16)
        check_rows(rows.flatten(0, 1), 3.6, tau, slack, dtype)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [
        ("norm", torch.float32),
        ("clamp", torch.bfloat16),
        ("tanh", torch.float16),
        ("relative", torch.bfloat16),
    ],
)
def test_long_rows_keep_the_bounds(mode: ClipMode, dtype: torch.dtype) -> None:
    """By whichever backend ``attend`` chooses; the sum of 4,096 exponentials is rounded too."""
    n, config = 4096, AttentionConfig(0.5, 2.0, mode)
    k = torch.full((1, 1, n, 8), -30.0, dtype=dtype)
    k[:, :, :3] = 30.0
    values = torch.eye(n, 4, dtype=dtype)[None, None]
    out, _ = attend(k[:, :, :1], k, values, None, config)
    slack = Slack(dtype, "blockwise", 8.0, n, 8)
    largest = g.mass_bound(2.0, 0.5, n, 3) / 3
    assert out[..., :3].double().max() <= largest * slack.factor
    assert out[..., :3].double().min() >= 0.9 * largest


def test_the_longest_float16_vectors_keep_the_bounds_in_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a GPU gives float16 under ``norm`` to this kernel; the factor is subnormal there."""
    layer = HardenedAttention(AttentionConfig(0.05, 0.2, "norm"), 1, 64)
    slack = Slack(torch.float16, "fused", 8.0, 6, 64)
    for length in torch.linspace(2e4, 6e4, 20).tolist():
        k = torch.full((1, 1, 6, 64), -length, dtype=torch.float16)
        k[:, :, 0] = length
        rows = read(monkeypatch, "fused", k[:, :, :1], k, layer)
        assert (rows.max() / rows.min()).log() <= 8.0 + slack.log_ratio
