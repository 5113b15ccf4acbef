"""The checks of a replay audit: from replayed gradients to PASS or FAIL.

Claim: a trainer that does what it states fails with a chance of about 1e-5, and a check that FAILs
shows that this trainer, in this configuration, does something else than its accountant is told.
Condition: the coins are those of the keys that the trainer is given. Not covered: that a trainer
without a FAIL is private. It sees the first update in full, and of the later ones the noise; faults
that need other records, other weights or a later step stay unseen, and so do noise that is not
normal but has its variance, and the accountant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.stats import binom, chi2, norm
from torch import Tensor

from attnpriv.errors import InputError
from attnpriv.training.loop import Schedule
from attnpriv.training.replay import NoiseSums, Replays, Subject

LEVEL = 1e-6  # the chance of a false alarm of one check
TOLERANCE = 1e-3  # by which clipped norms may be off for rounding
INTERACTION = 0.1  # of C, that bfloat16 makes of other batches; a batch clipped whole makes C
SEED = 20260217
STEPS = 12  # whose noise is compared
LARGE = 2_000_000  # trainable numbers from which on fewer steps are
FEW_STEPS = 6
SMALL = (8, 1)  # rows and batch size with which a third of the batches is empty
SMALL_STEPS = 24
NEAR_NORMAL = 10.0  # the variance of a batch's size from which on it is nearly normal


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: what was checked.
        stated: what the training says of itself.
        measured: what it does.
        passed: whether they agree.
        detail: in words.
        p_value: of the test behind it, corrected for what it looked at; None for an exact bound.
    """

    name: str
    stated: float
    measured: float
    passed: bool
    detail: str
    p_value: float | None = None


def replay_audit(
    subject: Subject,
    broken: int | None = None,
    on_step: Callable[[str], None] | None = None,
    seed: int = SEED,
) -> list[Check]:
    """Check a trainer against what its accountant is told.

    Args:
        subject: the trainer.
        broken: which of its records has a gradient that is not finite, if one does; it takes part
            in the check of its own only.
        on_step: called with what comes next.
        seed: of the coins of every replay.
    """
    tell = on_step or (lambda _: None)
    replays = Replays(subject, seed)
    sound = [record for record in range(len(subject.names)) if record != broken]
    tell("noise of steps without records")
    steps, few = (STEPS, SMALL_STEPS) if replays.size < LARGE else (FEW_STEPS, FEW_STEPS)
    sums = replays.noise(subject.schedule, steps)
    checks = [*_of_coins(sums, subject.schedule), *_of_noise(sums, steps)]
    tell("empty batches")
    checks.append(_of_empty_batches(replays.noise(Schedule(*SMALL, few), few), few))
    tell("one record more")
    checks = [*_of_records(subject, replays, sound), *checks]
    if broken is not None:
        tell("a gradient that is not finite")
        checks.append(_of_broken(subject, replays, sound, broken))
    return checks


def _of_records(subject: Subject, replays: Replays, sound: Sequence[int]) -> Iterator[Check]:
    """What each record adds to each of several batches, and what is left without them."""
    most, names = subject.max_grad_norm, subject.names
    whole = replays.gradient(sound)
    left, largest = whole.double(), []
    for record in sound:
        added = whole - replays.gradient([r for r in sound if r != record])
        largest.append((_norm(added), f"{names[record]}, among all"))
        left -= added
    empty = replays.gradient([])
    alone = {record: replays.gradient([record]) for record in sound[:3]}
    for record, gradient in alone.items():
        largest.append((_norm(gradient - empty), f"{names[record]}, alone"))
    # Two that pull in opposite directions: the second one turns round a sum that is clipped whole.
    together = 0.0
    for first, second in combinations(alone, 2):
        both = replays.gradient([first, second])
        together = max(together, _norm(both - alone[first] - alone[second] + empty), key=_gravity)
        largest.append((_norm(both - alone[first]), f"{names[second]}, after {names[first]}"))
        largest.append((_norm(both - alone[second]), f"{names[first]}, after {names[second]}"))
    length, where = max(largest, key=lambda each: _gravity(each[0]))
    allowed = most * (1 + TOLERANCE) + _rounding(subject, replays.size)
    yield Check("what one record adds", most, length, length <= allowed, f"largest: {where}")
    yield Check(
        "records clipped one by one", 0.0, together, together <= INTERACTION * most,
        "what two records add less what each adds alone",
    )  # fmt: skip
    alone_adds = max(_norm(gradient - empty) for gradient in alone.values())
    divisor = subject.schedule.batch_size * most / alone_adds if alone_adds else math.inf
    stated = float(subject.schedule.batch_size)
    slack = 2 * TOLERANCE + _rounding(subject, replays.size) / most
    yield Check(
        "divisor of the sum", stated, divisor, abs(divisor / stated - 1) <= slack,
        "from what a record far above the clipping norm adds",
    )  # fmt: skip
    deviation = subject.noise_multiplier * most
    yield _variance(
        "noise beside records", float(left.square().sum()) / deviation**2, len(left), 1,
        "the sum less what each of its records adds",
    )  # fmt: skip


def _of_noise(sums: NoiseSums, steps: int) -> Iterator[Check]:
    yield Check(
        "updates", steps, sums.updates, sums.updates == steps, "one for each step of the schedule"
    )
    updates = max(1, sums.updates)
    squares, size = sum(sums.squares.values()), sum(sums.sizes.values())
    yield _variance("noise", squares, size * updates, 1, f"over {updates} steps")
    name, worst = min(
        ((n, _two_sided(sums.squares[n], k * updates)) for n, k in sums.sizes.items()),
        key=lambda each: each[1],
    )
    ratio = math.sqrt(max(0.0, sums.squares[name]) / (sums.sizes[name] * updates))
    p_value = min(1.0, worst * len(sums.sizes))
    yield Check(
        "noise of each parameter", 1.0, ratio, p_value >= LEVEL,
        f"least likely of {len(sums.sizes)}: {name}", p_value,
    )  # fmt: skip
    yield _independence(sums.compared)


def _of_empty_batches(sums: NoiseSums, steps: int) -> Check:
    squares, size = sum(sums.squares.values()), sum(sums.sizes.values())
    drawn = len(sums.batch_sizes)
    detail = f"{sums.empty} of {drawn} batches were empty, {sums.updates} updates were made"
    check = _variance("noise of empty batches", squares, size * steps, 1, detail)
    passed = check.passed and sums.updates == drawn == steps and sums.empty > 0
    return Check(check.name, 1.0, check.measured, passed, detail, check.p_value)


def _of_coins(sums: NoiseSums, schedule: Schedule) -> Iterator[Check]:
    q, steps = schedule.sample_rate, max(1, len(sums.batch_sizes))
    coins, drawn = schedule.rows * steps, sum(sums.batch_sizes)
    tails = binom.cdf(drawn, coins, q), binom.sf(drawn - 1, coins, q)
    p_value = min(1.0, 2 * float(min(tails)))
    yield Check("sampling rate", q, drawn / coins, p_value >= LEVEL, f"{coins:,} coins", p_value)
    if q == 1:
        return
    spread = schedule.rows * q * (1 - q)
    if spread >= NEAR_NORMAL:
        deviations = np.square(np.array(sums.batch_sizes) - schedule.rows * q).sum() / spread
        detail = "as independent coins give it"
        yield _variance("spread of batch sizes", float(deviations), steps, 1, detail)
    counts = sums.row_counts.double().numpy()
    each = float(np.square(counts - steps * q).sum() / (steps * q * (1 - q)))
    variance = 2 + (1 - 6 * q * (1 - q)) / (steps * q * (1 - q))
    z = (each - schedule.rows) / math.sqrt(schedule.rows * variance)
    p_value = 2 * float(norm.sf(abs(z)))
    yield Check(
        "spread over rows", 1.0, math.sqrt(each / schedule.rows), p_value >= LEVEL,
        "every row is drawn as often as coins give it", p_value,
    )  # fmt: skip


def _of_broken(subject: Subject, replays: Replays, sound: Sequence[int], broken: int) -> Check:
    most, name = subject.max_grad_norm, "a gradient that is not finite"
    with_it = [*sound[:2], broken]
    without = replays.gradient(sound[:2])
    try:
        added = _norm(replays.gradient(with_it) - without)
    except InputError as error:
        return Check(name, most, 0.0, True, f"the training refuses it: {error}")
    allowed = most * (1 + TOLERANCE) + _rounding(subject, replays.size)
    return Check(name, most, added, added <= allowed, "what such a record adds")


def _independence(compared: Sequence[Tensor]) -> Check:
    """No two steps may have noise that is alike."""
    products = [
        abs(float(one.double() @ other.double())) / len(one)
        for one, other in combinations(compared, 2)
    ]
    pairs, most = len(products), max(products, default=0.0)
    p_value = 0.0
    if all(math.isfinite(product) for product in products):
        size = len(compared[0]) if compared else 1
        p_value = min(1.0, 2 * float(norm.sf(most * math.sqrt(size))) * max(1, pairs))
    return Check(
        "noise of different steps", 0.0, most, p_value >= LEVEL,
        f"largest correlation of {pairs} pairs of steps", p_value,
    )  # fmt: skip


def _variance(name: str, squares: float, size: int, stated: float, detail: str) -> Check:
    """The chi-square test that numbers in units of their stated deviation have variance 1."""
    p_value = _two_sided(squares, size)
    measured = math.sqrt(squares / size) if squares >= 0 else math.nan
    return Check(name, stated, measured, p_value >= LEVEL, detail, p_value)


def _two_sided(squares: float, size: int) -> float:
    if not math.isfinite(squares):
        return 0.0
    return min(1.0, 2 * float(min(chi2.cdf(squares, size), chi2.sf(squares, size))))


def _gravity(length: float) -> float:
    return math.inf if math.isnan(length) else length


def _norm(vector: Tensor) -> float:
    """NaN where a number is not finite."""
    length = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    return length if math.isfinite(length) else math.nan


def _rounding(subject: Subject, size: int) -> float:
    """What float32 leaves of equal noise in the difference of two gradients."""
    noise = subject.noise_multiplier * subject.max_grad_norm
    return 8 * 2.0**-24 * math.sqrt(size) * (noise + subject.max_grad_norm)
