"""The formulas against exhaustive vertices, random search and second derivations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from attnpriv import guarantees as g
from attnpriv.errors import InputError

GRID = list(itertools.product((0.1, 1.0, 2.0, 6.0), (0.5, 1.0, 3.0), (2, 3, 4, 6)))


def softmax(logits: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    powers = np.exp(logits / tau)
    return powers / powers.sum(-1, keepdims=True)


def vertex_rows(c: float, tau: float, n: int) -> NDArray[np.float64]:
    return softmax(np.array(list(itertools.product((-c, c), repeat=n))), tau)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_weight_mass_and_lift_bounds_are_the_extremes_over_all_vertices(
    c: float, tau: float, n: int
) -> None:
    rows = vertex_rows(c, tau, n)
    low, high = g.weight_bounds(c, tau, n)
    assert rows.min() == pytest.approx(low, rel=1e-12)
    assert rows.max() == pytest.approx(high, rel=1e-12)
    for k in range(1, n + 1):
        mass = rows[:, :k].sum(-1).max()
        assert mass == pytest.approx(g.mass_bound(c, tau, n, k), rel=1e-12)
        assert mass * n / k == pytest.approx(g.lift_bound(c, tau, n, k), rel=1e-12)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_total_variation_bound_holds_and_is_attained_for_even_n(
    c: float, tau: float, n: int
) -> None:
    rows = vertex_rows(c, tau, n)
    largest = (np.abs(rows[:, None] - rows[None]).sum(-1) / 2).max()
    bound = g.total_variation_bound(c, tau)
    assert largest <= bound * (1 + 1e-12)
    if n % 2 == 0:
        assert largest == pytest.approx(bound, rel=1e-12)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_single_logit_bound_holds_and_is_nearly_attained(c: float, tau: float, n: int) -> None:
    rng = np.random.default_rng(0)
    bound = g.single_logit_total_variation_bound(c, tau)
    before = rng.uniform(-c, c, (2000, n))
    before[:, 0] = -c
    after = before.copy()
    after[:, 0] = c
    variation = np.abs(softmax(before, tau) - softmax(after, tau)).sum(-1) / 2
    assert variation.max() <= bound * (1 + 1e-12)
    if n == 2:
        assert variation.max() >= 0.99 * bound


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_selection_epsilon_is_the_largest_log_ratio(c: float, tau: float, n: int) -> None:
    rows = vertex_rows(c, tau, n)
    largest = np.log(rows[:, 0].max() / rows[:, 0].min())
    assert g.selection_epsilon(c, tau, n) == pytest.approx(largest, rel=1e-12)
    assert largest <= 4 * c / tau
    assert g.selection_rho(c, tau) == pytest.approx((4 * c / tau) ** 2 / 8)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_softmax_jacobian_bound_holds_at_random_logits(c: float, tau: float, n: int) -> None:
    rng = np.random.default_rng(0)
    bound = g.softmax_jacobian_bound(c, tau, n)
    for row in softmax(rng.uniform(-c, c, (200, n)), tau):
        jacobian = (np.diag(row) - np.outer(row, row)) / tau
        assert np.linalg.norm(jacobian, 2) <= bound * (1 + 1e-12)


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_row_release_scale_covers_the_l1_distance_of_any_two_rows(
    c: float, tau: float, n: int
) -> None:
    rows = vertex_rows(c, tau, n)
    largest = np.abs(rows[:, None] - rows[None]).sum(-1).max()
    assert largest / g.row_release_scale(c, tau, 0.7) <= 0.7 * (1 + 1e-12)


def test_values_of_the_span_bounds_and_of_the_gates() -> None:
    assert g.span_total_variation_bound(2.0, 2.0, 32, 4) == pytest.approx(0.38852, abs=5e-6)
    assert g.span_selection_epsilon(2.0, 2.0, 32, 4) == pytest.approx(2.28733, abs=5e-6)
    assert g.gate_lift_bound(2.0, 2.0, 32, 4) == pytest.approx(2.2377, abs=5e-5)
    low, high = g.gate_bounds(2.0, 2.0)
    assert (low, high) == pytest.approx((1 / (1 + math.e), math.e / (1 + math.e)), rel=1e-12)
    assert g.gate_bounds(0.0, 1.0) == (0.5, 0.5)
    assert g.gate_bounds(1e6, 1.0) == (0.0, 1.0)


SPAN_GRID = [
    (ratio, n, k)
    for ratio in (0.05, 0.5, 1.0, 3.0)
    for n in (1, 2, 3, 4, 5, 6, 7)
    for k in range(1, min(n, 4) + 1)
]


def span_rows(
    ratio: float, k: int, rest: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows at all vertices of k logits: their k weights [rest, 2^k, k], and the other keys' sum."""
    powers = np.exp(np.array(list(itertools.product((-ratio, ratio), repeat=k))))
    totals = powers.sum(-1)[None] + rest[:, None]
    return powers[None] / totals[..., None], rest[:, None] / totals


@pytest.mark.every_pair
@pytest.mark.parametrize(("ratio", "n", "k"), SPAN_GRID)
def test_span_total_variation_is_the_largest_over_all_vertices(
    ratio: float, n: int, k: int
) -> None:
    # The keys that stay matter only by the sum of their powers: each keeps its share of what is
    # left. The sum need not be at a vertex, so it takes a grid, finer than the tolerance.
    rest = np.geomspace((n - k) * math.exp(-ratio), (n - k) * math.exp(ratio), 1001) if n > k else 0
    weights, others = span_rows(ratio, k, np.atleast_1d(rest).astype(float))
    distances = np.abs(weights[:, :, None] - weights[:, None]).sum(-1)
    largest = ((distances + np.abs(others[:, :, None] - others[:, None])) / 2).max()
    bound = g.span_total_variation_bound(ratio, 1.0, n, k)
    assert largest <= bound * (1 + 1e-12)
    assert largest == pytest.approx(bound, rel=1e-5)


@pytest.mark.every_pair
@pytest.mark.parametrize(("ratio", "n", "k"), [cell for cell in SPAN_GRID if cell[1] <= 6])
def test_span_selection_epsilon_is_the_largest_over_all_vertices(
    ratio: float, n: int, k: int
) -> None:
    rows = vertex_rows(ratio, 1.0, n)
    # The first n - k logits stay: the rows that share them are next to each other.
    logarithms = np.log(rows).reshape(2 ** (n - k), 2**k, n)
    largest = (logarithms.max(1) - logarithms.min(1)).max()
    assert g.span_selection_epsilon(ratio, 1.0, n, k) == pytest.approx(
        largest, rel=1e-12, abs=1e-15
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_no_ascent_from_random_logits_exceeds_the_span_bounds(k: int) -> None:
    n, ratio = 6, 1.0
    rng = np.random.default_rng(k)
    variation = g.span_total_variation_bound(ratio, 1.0, n, k)
    epsilon = g.span_selection_epsilon(ratio, 1.0, n, k)
    logits = rng.uniform(-ratio, ratio, (500, 2, n))
    logits[:, 1, k:] = logits[:, 0, k:]
    best = np.zeros((2, 500))
    for step in range(300):  # coordinates are moved at random, and stay where they made it worse
        moved = np.clip(logits + rng.normal(0, 1 / (1 + step / 30), logits.shape), -ratio, ratio)
        moved = np.where(rng.random(logits.shape) < 0.5, moved, logits)
        moved[:, 1, k:] = moved[:, 0, k:]
        rows = softmax(moved, 1.0)
        found = np.array(
            [
                np.abs(rows[:, 0] - rows[:, 1]).sum(-1) / 2,
                np.abs(np.log(rows[:, 0] / rows[:, 1])).max(-1),
            ]
        )
        objective = step % 2
        better = found[objective] > best[objective]
        logits[better] = moved[better]
        best = np.maximum(best, found)
    assert best[0].max() <= variation * (1 + 1e-12)
    assert best[1].max() <= epsilon * (1 + 1e-12)
    assert best[0].max() >= 0.9 * variation
    assert best[1].max() >= 0.9 * epsilon


def test_span_bounds_of_all_keys_are_those_of_any_change() -> None:
    for ratio, n in itertools.product((0.1, 1.0, 4.0), (1, 2, 3, 8, 33)):
        variation = g.span_total_variation_bound(ratio, 1.0, n, n)
        assert variation <= g.total_variation_bound(ratio, 1.0) * (1 + 1e-12)
        if n % 2 == 0:
            assert variation == pytest.approx(g.total_variation_bound(ratio, 1.0), rel=1e-12)
        epsilon = g.span_selection_epsilon(ratio, 1.0, n, n)
        assert epsilon == pytest.approx(g.selection_epsilon(ratio, 1.0, n), rel=1e-12)


def test_span_bounds_grow_with_the_clip_and_with_the_number_of_sensitive_keys() -> None:
    for bound, n in itertools.product(
        (g.span_total_variation_bound, g.span_selection_epsilon), (2, 5, 32)
    ):
        table = [[bound(c, 1.0, n, k) for k in range(n + 1)] for c in (0.01, 0.1, 1, 3, 10, 1000)]
        assert (np.diff(table, axis=0) >= -1e-9).all()
        assert (np.diff(table, axis=1) >= -1e-9).all()


def test_one_sensitive_key_has_at_most_the_variation_of_one_logit() -> None:
    for ratio, n in itertools.product((0.1, 1.0, 4.0), (2, 3, 8, 33)):
        one = g.span_total_variation_bound(ratio, 1.0, n, 1)
        bound = g.single_logit_total_variation_bound(ratio, 1.0)
        assert one <= bound * (1 + 1e-12)
    assert g.span_total_variation_bound(1.0, 1.0, 2, 1) == pytest.approx(math.tanh(0.5))


def test_limits_of_the_span_bounds() -> None:
    for c in (0.0, 1.0, 1e6, math.inf):
        assert g.span_total_variation_bound(c, 1.0, 5, 0) == 0.0
        assert g.span_selection_epsilon(c, 1.0, 5, 0) == 0.0
        assert g.span_total_variation_bound(c, 1.0, 1, 1) == 0.0
        assert g.span_selection_epsilon(c, 1.0, 1, 1) == 0.0
    for k in (1, 2, 5):
        assert g.span_total_variation_bound(0.0, 1.0, 5, k) == 0.0
        assert g.span_selection_epsilon(0.0, 1.0, 5, k) == 0.0
        assert g.span_total_variation_bound(math.inf, 1.0, 5, k) == 1.0
        assert g.span_total_variation_bound(1e3, 1.0, 5, k) == pytest.approx(1.0)
        assert g.span_selection_epsilon(math.inf, 1.0, 5, k) == math.inf


@pytest.mark.every_pair
@pytest.mark.parametrize(("c", "tau", "n"), GRID)
def test_gate_lift_bound_is_the_largest_over_all_vertices(c: float, tau: float, n: int) -> None:
    gates = 1 / (1 + np.exp(-np.array(list(itertools.product((-c, c), repeat=n))) / tau))
    shares = gates / gates.sum(-1, keepdims=True)
    for k in range(1, n + 1):
        lift = shares[:, :k].sum(-1).max() * n / k
        assert lift == pytest.approx(g.gate_lift_bound(c, tau, n, k), rel=1e-12)


def test_output_change_bound_holds_for_random_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.normal(size=(5, 3))
        rows = softmax(rng.uniform(-2, 2, (2, 5)), 1.5)
        diameter = max(float(np.linalg.norm(a - b)) for a in values for b in values)
        change = np.linalg.norm(rows[0] @ values - rows[1] @ values)
        assert change <= g.output_change_bound(2, 1.5, diameter)


def test_limits_no_clip_zero_clip_one_key_and_huge_clip() -> None:
    assert g.weight_bounds(math.inf, 1.0, 3) == (0.0, 1.0)
    assert g.lift_bound(math.inf, 1.0, 12, 3) == 4.0
    assert g.selection_epsilon(math.inf, 1.0, 2) == math.inf
    assert g.total_variation_bound(math.inf, 1.0) == 1.0
    assert g.weight_bounds(0.0, 1.0, 4) == (0.25, 0.25)
    assert g.selection_epsilon(0.0, 1.0, 4) == 0.0
    assert g.weight_bounds(3.0, 1.0, 1) == (1.0, 1.0)
    assert g.weight_bounds(math.inf, 1.0, 1) == (1.0, 1.0)
    assert g.weight_bounds(1e6, 1e-3, 4) == (0.0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: g.weight_bounds(-1, 1, 2),
        lambda: g.weight_bounds(math.nan, 1, 2),
        lambda: g.weight_bounds(1, 0, 2),
        lambda: g.weight_bounds(1, -1, 2),
        lambda: g.weight_bounds(1, math.inf, 2),
        lambda: g.weight_bounds(1, math.nan, 2),
        lambda: g.weight_bounds(1, 1, 0),
        lambda: g.mass_bound(1, 1, 3, 4),
        lambda: g.mass_bound(1, 1, 3, -1),
        lambda: g.lift_bound(1, 1, 3, 0),
        lambda: g.span_total_variation_bound(1, 1, 3, 4),
        lambda: g.span_total_variation_bound(1, 1, 10**6 + 1, 4),
        lambda: g.span_selection_epsilon(1, 1, 3, 4),
        lambda: g.span_selection_epsilon(1, 1, 3, -1),
        lambda: g.gate_lift_bound(1, 1, 3, 0),
        lambda: g.selection_epsilon(1, 1, 0),
        lambda: g.row_release_scale(1, 1, 0),
        lambda: g.output_change_bound(1, 1, -1),
        lambda: g.clip_radius(1, 0),
        lambda: g.vote_share(-0.1, 0.5),
        lambda: g.vote_share(1.1, 0.5),
        lambda: g.vote_share(math.nan, 0.5),
        lambda: g.vote_share(1, 0.0),
        lambda: g.vote_share(1, 1.0),
        lambda: g.vote_share(1, math.nan),
        lambda: g.vote_share(1, 0.5, substitutions=-1),
        lambda: g.vote_share(1, 0.5, deletions=1.5),  # type: ignore[arg-type]
        lambda: g.vote_share(1, 0.5, insertions=2**60),
    ],
)
def test_values_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(InputError, match="expected .* got"):
        call()  # type: ignore[operator]


FUNCTIONS: dict[Callable[..., object], tuple[float, ...]] = {
    g.weight_bounds: (1.0, 1.0, 3),
    g.mass_bound: (1.0, 1.0, 3, 2),
    g.lift_bound: (1.0, 1.0, 3, 2),
    g.total_variation_bound: (1.0, 1.0),
    g.single_logit_total_variation_bound: (1.0, 1.0),
    g.span_total_variation_bound: (1.0, 1.0, 3, 2),
    g.span_selection_epsilon: (1.0, 1.0, 3, 2),
    g.gate_bounds: (1.0, 1.0),
    g.gate_lift_bound: (1.0, 1.0, 3, 2),
    g.output_change_bound: (1.0, 1.0, 1.0),
    g.softmax_jacobian_bound: (1.0, 1.0, 3),
    g.selection_epsilon: (1.0, 1.0, 3),
    g.selection_rho: (1.0, 1.0),
    g.row_release_scale: (1.0, 1.0, 1.0),
    g.clip_radius: (1.0, 3),
}


def test_every_function_is_tried_with_values_out_of_range() -> None:
    public = {f for name, f in vars(g).items() if callable(f) and not name.startswith("_")}
    have_tests_of_their_own = {  # they take contributions, or numbers by name
        g.substitution_radius,
        g.deletion_radius,
        g.insertion_radius,
        g.edit_radius,
        g.vote_share,
    }
    ours = {f for f in public if f.__module__ == g.__name__}
    assert ours == set(FUNCTIONS) | have_tests_of_their_own


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 0, 2.5, 1e300, 2**60])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_argument_gives_a_number_or_an_error_that_names_it(
    function: Callable[..., object], value: float
) -> None:
    for place, usual in enumerate(FUNCTIONS[function]):
        arguments = [*FUNCTIONS[function][:place], value, *FUNCTIONS[function][place + 1 :]]
        try:
            result = function(*arguments)
        except InputError as error:
            message = str(error)
        else:
            message = ""
            numbers = result if isinstance(result, tuple) else (result,)
            assert not any(map(math.isnan, numbers))
            assert value >= 0
            assert not isinstance(usual, int) or (isinstance(value, int) and value <= 2**53)
        assert message == "" or message.endswith(f"got {value}")
