from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from attnpriv.audit.leakage.canaries import WHITE_BOX, Scored, measure_canaries
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.privacy.accounting import noise_multiplier_for
from attnpriv.privacy.canaries import AxisCanaries
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.privacy.profile import profile_of_steps
from attnpriv.privacy.stepper import PrivateStepper
from attnpriv.randomness import StepKeys, Stream
from attnpriv.runs.canaries import Canaries, canaries_path, read_canaries
from attnpriv.runs.card_text import card_text
from attnpriv.runs.folder import load_run
from attnpriv.training import train
from attnpriv.training.batches import HeadRecords
from attnpriv.training.canaries import CanaryPlan, PlantedCanaries, plan_canaries
from attnpriv.training.loop import Schedule, Training
from attnpriv.training.processes import Processes
from attnpriv.verdicts import Claim, make_claim
from attnpriv_server.models.folders import find_places
from tests.attnpriv.training.test_resume import assert_same, interrupt

SCHEDULE = Schedule(rows=120, batch_size=30, steps=60)
EPSILON, DELTA = 3.0, 1e-5
SIGMA = noise_multiplier_for(EPSILON, DELTA, SCHEDULE.sample_rate, SCHEDULE.steps, "rdp")


@pytest.fixture(scope="module")
def claim() -> Claim:
    steps = NoisedSteps(SIGMA, SCHEDULE.sample_rate, SCHEDULE.steps, 0.1)
    pairs = [(EPSILON, DELTA), *profile_of_steps(steps, "prv")]
    return make_claim(EPSILON, DELTA, "its steps", pairs)


def _trained(canaries: int, noise: float = SIGMA, rate: float = 1.0) -> Scored:
    """White-box scores of a linear model with 3,100 numbers, for stated σ and q.

    Args:
        canaries: how many gradients.
        noise: σ that is in fact added.
        rate: the sampling rate over the one that is stated.
    """
    torch.manual_seed(1)
    head, privacy = nn.Linear(30, 100), PrivacyConfig(EPSILON, max_grad_norm=0.1)
    planted = PlantedCanaries(
        CanaryPlan(canaries, (), ()), bytes(range(32)), SCHEDULE.rows, SCHEDULE.sample_rate,
        privacy, SIGMA, 3100,
    )  # fmt: skip
    drawn = Schedule(SCHEDULE.rows, int(SCHEDULE.batch_size * rate), SCHEDULE.steps)
    training = Training(
        HeadRecords(head, torch.randn(SCHEDULE.rows, 30), torch.arange(SCHEDULE.rows) % 100),
        torch.optim.Adam(head.parameters()),
        drawn,
        TrainConfig(),
        privacy=privacy,
        noise_multiplier=noise,
        keys=StepKeys.from_seed(0),
        processes=Processes(),
        canaries=planted,
    )
    for _ in range(SCHEDULE.steps):
        training.step()
    training.finish()
    known = planted.seen("").gradients
    return Scored(WHITE_BOX, np.array(known.coins), np.array(known.scores))


def test_white_box_proves_what_a_perfect_attack_could(claim: Claim) -> None:
    found = measure_canaries([_trained(1000)], claim)
    assert found.judgement.verdict == "WITHIN THE CLAIM"
    assert found.epsilon >= 1.1
    assert abs(found.epsilon - found.ceiling) < 0.6


def test_white_box_scores_order_canaries_as_well_as_epsilon_allows(claim: Claim) -> None:
    scored = _trained(3000)
    assert roc_auc_score(scored.coins, scored.scores) == pytest.approx(claim.auc, abs=0.03)


@pytest.mark.parametrize("fault", [{"noise": 0.0}, {"noise": SIGMA / 3}, {"rate": 3.0}], ids=str)
def test_a_broken_training_is_caught(fault: dict[str, float], claim: Claim) -> None:
    found = measure_canaries([_trained(1000, **fault)], claim)
    assert found.judgement.verdict == "BEYOND THE CLAIM"


def test_coins_that_nobody_tossed_are_not_found(claim: Claim) -> None:
    scored = _trained(1000)
    others = np.random.default_rng(3).random(1000) < 0.5
    found = measure_canaries([Scored(WHITE_BOX, others, scored.scores)], claim)
    assert found.judgement.verdict == "INCONCLUSIVE"
    assert found.epsilon == 0.0


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
def test_a_canary_adds_the_clipping_norm_along_its_axis(clipping: Any) -> None:
    torch.manual_seed(0)
    module, most, batch = nn.Linear(5, 3), 0.25, 7
    canaries = AxisCanaries(
        torch.tensor([16, 0, 11]), torch.tensor([1.0, -1.0, 1.0]),
        sample_rate=0.3, noise_multiplier=1.5, max_grad_norm=most, clipping=clipping,
    )  # fmt: skip
    given = []
    for drawn in ([], [0, 1]):
        copy = nn.Linear(5, 3)
        copy.load_state_dict(module.state_dict())
        stepper = PrivateStepper(
            copy, torch.optim.SGD(copy.parameters(), 0.0), noise_multiplier=1.5,
            max_grad_norm=most, expected_batch_size=batch, clipping=clipping, canaries=canaries,
        )  # fmt: skip
        canaries.drawn = torch.tensor(drawn, dtype=torch.long)
        x = torch.ones(2, 5)
        stepper.step([lambda module, x=x: module(x).square().sum(1)], Stream(bytes(32)))
        given.append(torch.cat([p.grad.flatten() for p in copy.parameters()]) * batch)  # type: ignore[union-attr]
    added = given[1] - given[0]
    expected = torch.zeros(18)
    expected[16], expected[0] = most, -most
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-5)


def test_scores_are_log_likelihood_ratios_of_what_noise_leaves() -> None:
    q, sigma, most = 0.3, 1.5, 0.25
    canaries = AxisCanaries(
        torch.tensor([2, 0]), torch.tensor([1.0, -1.0]),
        sample_rate=q, noise_multiplier=sigma, max_grad_norm=most, clipping="flat",
    )  # fmt: skip
    others, noise = torch.tensor([5.0, 7.0, 11.0]), torch.tensor([0.13, 0.2, -0.1])
    expected = np.zeros(2)
    for drawn in ([0], [0, 1], []):
        sums = others.clone()
        canaries.drawn = torch.tensor(drawn, dtype=torch.long)
        canaries.add([sums])
        canaries.observe([(sums + noise) / 10], 10)
        x = np.array([(0 in drawn) - 0.1 / most, (1 in drawn) - 0.13 / most])
        without, within = (np.exp(-((x - mean) ** 2) / (2 * sigma**2)) for mean in (0, 1))
        expected += np.log((1 - q) + q * within / without)
    np.testing.assert_allclose(canaries.scores.numpy(), expected, atol=1e-4)


def test_only_those_enter_whose_coin_says_so() -> None:
    plan = CanaryPlan(40, ("text",) * 30, (0,) * 30)
    planted = PlantedCanaries(plan, bytes(32), 20, 0.5, PrivacyConfig(3.0), 1.0, 100)
    rows = planted.enter(torch.arange(90))
    known = planted.seen("weights")
    assert rows.tolist() == [*range(20), *(20 + i for i in range(30) if known.texts.coins[i])]
    drawn = [] if planted.gradients is None else planted.gradients.drawn.tolist()
    assert drawn == [i for i in range(40) if known.gradients.coins[i]]
    assert 10 < len(drawn) < 30
    assert planted.enter(torch.arange(5)).tolist() == [*range(5)]


def test_coins_are_fair_and_axes_differ() -> None:
    plan = CanaryPlan(4000, (), ())
    planted = PlantedCanaries(plan, bytes(32), 20, 0.5, PrivacyConfig(3.0), 1.0, 5000)
    assert abs(sum(planted.seen("").gradients.coins) - 2000) < 4 * 32
    assert planted.gradients is not None
    assert len({*planted.gradients._axes.tolist()}) == 4000


def _known(run: Path) -> Canaries:
    found = read_canaries(load_run(run))
    assert found is not None
    return found


def test_coins_are_beside_the_run_and_for_its_owner_only(tickets: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {"config": TrainConfig(steps=3, batch_size=60), "privacy": PrivacyConfig(3.0)}
    result = train(tickets, out, canaries=50, **options)  # type: ignore[arg-type]
    path = canaries_path(out)
    assert path == tmp_path / ".run.canaries"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [place.name for place in find_places(tmp_path).places] == ["run"]
    assert not any(b"coins" in file.read_bytes() for file in out.iterdir())
    known = _known(out)
    assert len(known.gradients.coins) == len(known.gradients.scores) == 50
    assert len(known.texts.texts) == len({*known.texts.texts}) == 24, "a tenth of the rows"
    assert result.card.canaries is not None
    assert "50 made-up gradients and 24 made-up texts" in card_text(result.card)
    assert result.card.privacy is not None
    assert result.card.privacy.sample_rate == 60 / result.card.data.rows_train
    with pytest.raises(InputError, match="expected a new file of canaries"):
        (tmp_path / ".other.canaries").write_text("of a run that was removed")
        train(tickets, tmp_path / "other", canaries=50, **options)  # type: ignore[arg-type]
    path.rename(tmp_path / ".other.canaries")
    out.rename(tmp_path / "other")
    assert _known(tmp_path / "other") == known


def test_a_file_of_another_run_or_of_nonsense_is_refused(tickets: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tickets, out, canaries=20, config=TrainConfig(steps=2), privacy=PrivacyConfig(3.0))
    path, run = canaries_path(out), load_run(out)
    plain = json.loads(path.read_text())
    for changed, message in (
        ({**plain, "weights": "0" * 64}, "another run"),
        ({**plain, "gradients": {"coins": [True], "scores": []}}, "one coin for each"),
        ({"weights": 3}, "weights"),
        ([], "an object"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            read_canaries(run)
    path.unlink()
    assert read_canaries(run) is None


def test_a_run_without_canaries_has_none_though_an_old_file_is_there(
    tickets: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    canaries_path(out).write_text("of a run that had this name before")
    train(tickets, out, config=TrainConfig(steps=1), privacy=None)
    assert read_canaries(load_run(out)) is None


def test_without_privacy_canaries_are_texts(tickets: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tickets, out, canaries=20, config=TrainConfig(steps=3), privacy=None)
    known = _known(out)
    assert (len(known.gradients.coins), len(known.texts.coins)) == (0, 20)


@pytest.mark.exhaustive
@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
def test_an_interrupt_keeps_the_coins(trainings: Any, tmp_path: Path, private: bool) -> None:
    options = {} if private else {"privacy": None}
    expected = trainings.run(tmp_path / "expected" / "run", canaries=22, **options).path
    out = tmp_path / "run"
    interrupt(trainings, out, at=21, canaries=22, **options)
    with pytest.raises(InputError, match="its canaries is"):
        trainings.run(out, canaries=20, resume=True, **options)
    trainings.run(out, canaries=22, resume=True, **options)
    assert_same(out, expected)
    assert canaries_path(out).read_bytes() == canaries_path(expected).read_bytes()


def test_canaries_change_no_draw_of_the_rows(tickets: Dataset) -> None:
    plain, more = (Stream(bytes(32)).uniform(size) for size in (240, 300))
    assert torch.equal(plain, more[:240])


@pytest.mark.parametrize(
    ("count", "private", "size", "message"),
    [
        (0, True, 100, "canaries"),
        (19, True, 100, "at least 20 canaries"),
        (101, True, 100, "at most 100 canaries"),
        (25, False, 100, "at least 200 rows of text"),
    ],
)
def test_counts_out_of_range(
    tickets: Dataset, count: int, private: bool, size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_canaries(count, tickets.subset(range(9)), private, size, 0)
