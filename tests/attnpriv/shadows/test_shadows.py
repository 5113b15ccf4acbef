"""Shadow models are trained like the run, on halves that coins chose, and survive a kill."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.leakage.shadow_folder import ShadowModels, read_shadows
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.models.classifier import pooled_features
from attnpriv.randomness import StepKeys
from attnpriv.runs.folder import WEIGHTS, Run, load_run
from attnpriv.shadows import train_shadows
from attnpriv.shadows.recipe import recipe_of
from attnpriv.training import train
from attnpriv.training.processes import Processes

CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


@pytest.fixture(scope="session")
def answers(shadows: Path) -> ShadowModels:
    return read_shadows(shadows)


def test_each_shadow_is_a_run_trained_like_the_run_on_half_of_the_records(
    shadows: Path, frozen_run: Run, tickets: Dataset
) -> None:
    wanted = frozen_run.card.training
    rate = wanted.expected_batch_size / frozen_run.card.data.rows_train
    for number in range(8):
        shadow = load_run(shadows / "runs" / f"{number:04d}")
        rows = shadow.card.data.rows_train
        batch = shadow.card.training.expected_batch_size
        assert replace(shadow.card.training, expected_batch_size=0) == replace(
            wanted, expected_batch_size=0
        )
        assert rate - 1 / rows < batch / rows <= rate
        assert shadow.model.config == frozen_run.model.config
        assert 0.35 < rows / len(tickets) < 0.65


def test_the_answers_are_those_of_the_shadows_and_the_bits_those_of_their_splits(
    shadows: Path, answers: ShadowModels, tickets: Dataset
) -> None:
    assert answers.log_odds.shape == answers.inside.shape == (8, len(tickets))
    for number in (0, 5):
        shadow = load_run(shadows / "runs" / f"{number:04d}")
        encodings = shadow.modality.read(tickets.texts)
        logits = shadow.model.head(pooled_features(shadow.model, shadow.modality, encodings))
        odds = true_label_log_odds(softmax(logits.double().numpy(), axis=1), tickets.labels)
        assert answers.log_odds[number] == pytest.approx(odds, abs=1e-5)
        trained = shadow.split(tickets).trained
        assert np.flatnonzero(answers.inside[number]).tolist() == trained
    assert len({row.tobytes() for row in answers.inside}) == 8


def test_the_coins_are_fair_and_know_nothing_of_the_run_and_of_each_other(
    frozen_run: Run, tickets: Dataset
) -> None:
    data = tickets.subset([*range(len(tickets)), 0, 1])  # the last two are copies
    recipe = recipe_of(frozen_run)
    inside = np.zeros((200, len(data)))
    for number, row in enumerate(inside):
        texts = {*recipe.cut(data, 0, number).rows.texts}
        row[:] = [text in texts for text in data.texts]
    distinct = len({*tickets.texts})
    tossed = 200 * distinct
    assert inside.mean() == pytest.approx(0.5, abs=4 * 0.5 / tossed**0.5 + 0.01)
    assert (inside[:, -2:] == inside[:, :2]).all()
    members = np.isin(np.arange(len(tickets)), frozen_run.split(tickets).trained)
    with_run = np.corrcoef(inside[:, : len(tickets)].mean(0), members)[0, 1]
    assert abs(with_run) < 4 / distinct**0.5
    among = np.corrcoef(inside)[np.triu_indices(200, 1)]
    assert abs(among.mean()) < 4 / (len(among) * distinct) ** 0.5 + 0.01


def test_other_seeds_and_the_shadows_of_a_shadow_have_other_coins(
    shadows: Path, frozen_run: Run, tickets: Dataset
) -> None:
    shadow = load_run(shadows / "runs" / "0003")
    runs = ((frozen_run, 0), (frozen_run, 1), (shadow, 0))
    seeds = [recipe_of(run).seed_of(seed, k) for run, seed in runs for k in range(99)]
    assert len({*seeds}) == len(seeds)
    assert shadow.card.data.split["seed"] in seeds[:99]


def test_shadows_of_a_private_run_have_its_noise_and_at_most_its_epsilon(
    tmp_path: Path, tickets: Dataset
) -> None:
    privacy = PrivacyConfig(epsilon=2.0, max_grad_norm=0.5, clipping="automatic")
    config = TrainConfig(trainable="head", steps=3)
    train(tickets, tmp_path / "run", encoder="scratch", config=config, privacy=privacy)
    recipe = recipe_of(load_run(tmp_path / "run"))
    wanted = recipe.run.card.privacy
    assert wanted is not None
    for number in range(2):
        plan = recipe.plan(recipe.cut(tickets, 0, number))
        same = {"noise_multiplier": wanted.noise_multiplier, "epsilon": 2.0}
        assert plan.privacy == replace(privacy, **same)
        assert plan.schedule.steps == wanted.steps
        assert plan.schedule.sample_rate <= wanted.sample_rate
        assert 0.8 * wanted.epsilon < plan.epsilon(wanted.steps) <= wanted.epsilon
        rows = len(plan.parts.rows)
        training = plan.begin([], StepKeys.from_seed(0), Processes(), torch.zeros(rows, 256))
        training.step()


def test_an_encoder_that_is_trained_begins_anew_in_each_shadow(
    tmp_path: Path, tiny_run: Path, tickets: Dataset
) -> None:
    run = load_run(tiny_run)
    recipe = recipe_of(run)
    plans = [recipe.plan(recipe.cut(tickets, 0, number)) for number in range(2)]
    words = [plan.classifier.model.words.weight for plan in plans]
    assert not (words[0] == words[1]).all()
    assert not (words[0] == run.model.words.weight).any()
    assert all(plan.classifier.model.config == run.model.config for plan in plans)


def test_no_text_is_in_the_folder_and_nobody_else_may_read_it(
    shadows: Path, tickets: Dataset
) -> None:
    files = [path for path in shadows.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files if path.name != WEIGHTS)
    pieces = {text[start : start + 20] for text in tickets.texts for start in (0, 20, 40)}
    pieces |= {word for text in tickets.texts for word in re.findall(r"\S+@\S+", text)}
    assert len(pieces) > 500
    assert not [piece for piece in pieces if len(piece) > 9 and piece.encode() in content]
    assert stat.S_IMODE(shadows.stat().st_mode) == 0o700
    private = [shadows / "settings.json", *(shadows / "answers").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert sorted(path.name for path in shadows.iterdir()) == ["answers", "runs", "settings.json"]


def killed(before_change: int, work: Callable[[], None], folder: Path) -> bool:
    """Whether kill -9 met the work, in a process of its own, before a change of the folder."""
    pid = os.fork()
    if pid == 0:
        left = before_change

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event not in CHANGES or str(folder) not in str(arguments[0]):
                return
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(hook)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) != 0


@pytest.mark.parametrize(
    "before_change",
    [2, 40, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(1, 240, 3))],
)
def test_killed_at_any_moment_shadows_go_on_and_end_with_the_same_bits(
    before_change: int, tmp_path: Path, shadows: Path, frozen_run: Run, tickets: Dataset
) -> None:
    out = tmp_path / "shadows"

    def work(resume: bool = False) -> None:
        train_shadows(frozen_run, tickets, out, models=8, resume=resume)

    if killed(before_change, work, out):
        work(resume=(out / "settings.json").exists())
    assert read_shadows(out).sha256 == read_shadows(shadows).sha256
    names = [path.relative_to(out) for path in sorted(out.rglob("*"))]
    left = [name for name in names if name.name.startswith(".") and "settings" not in name.name]
    assert not [name for name in left if ".partial" in str(name)]
    for number in range(8):
        manifests = [each / "runs" / f"{number:04d}" / "manifest.json" for each in (out, shadows)]
        assert manifests[0].read_bytes() == manifests[1].read_bytes()


def test_a_finished_folder_is_left_as_it_is(
    shadows: Path, frozen_run: Run, tickets: Dataset
) -> None:
    before = {path: path.stat().st_mtime_ns for path in shadows.rglob("*.safetensors")}
    train_shadows(frozen_run, tickets, shadows, models=8, resume=True)
    assert {path: path.stat().st_mtime_ns for path in shadows.rglob("*.safetensors")} == before


def test_what_cannot_be_imitated_is_refused_and_nothing_is_left(
    tmp_path: Path, frozen_run: Run, tickets: Dataset, shadows: Path
) -> None:
    def refused(
        expected: str, run: Run = frozen_run, data: Dataset = tickets, **options: Any
    ) -> None:
        with pytest.raises(InputError, match=expected):
            train_shadows(run, data, options.pop("out", tmp_path / "new"), **options)

    refused("expected models from 8 to 9999, got 7", models=7)
    refused("expected seed", seed=-1)
    refused("expected the data that frozen was trained on", data=tickets.subset(range(299)))
    refused("no.*there are none|there are none", resume=True)
    refused("exists already", out=shadows)
    refused("its seed is 0, this command's is 1", out=shadows, seed=1, models=8, resume=True)
    refused("its models is 8", out=shadows, models=64, resume=True)
    old = replace(frozen_run, card=replace(frozen_run.card, training=None))
    refused("does not say how it was trained", run=old)
    local = replace(frozen_run, card=replace(frozen_run.card, trainable="all"))
    shape = replace(frozen_run.model.config, encoder="mine")
    local.model.config, kept = shape, local.model.config
    try:
        refused("expected this folder as --encoder", run=local)
    finally:
        local.model.config = kept
    assert not (tmp_path / "new").exists()


def test_answers_that_are_missing_or_damaged_are_refused(tmp_path: Path, shadows: Path) -> None:
    out = tmp_path / "shadows"
    shutil.copytree(shadows, out, ignore=shutil.ignore_patterns("runs"))
    some = out / "answers" / "0005.safetensors"
    content = some.read_bytes()
    some.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"cannot read the answers .*0005"):
        read_shadows(out)
    some.unlink()
    with pytest.raises(InputError, match="1 of the 8 shadow models .* not finished"):
        read_shadows(out)
    (out / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read as its settings"):
        read_shadows(out)
    with pytest.raises(InputError, match="expected a folder of attnpriv shadows"):
        read_shadows(tmp_path)


def test_the_command_says_what_it_made_and_that_it_is_private(
    command: Callable[..., Any], frozen_run: Run, shadows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shadows"
    shutil.copytree(shadows, out)
    (out / "answers" / "0003.safetensors").unlink()
    arguments = ["shadows", "--like", frozen_run.path, "--data", "tickets:rows=300", "--out", out]
    done = command(*arguments, "--models", 8, "--resume")
    assert (done.code, done.err) == (0, "")
    assert "8 shadow models of frozen" in done.out
    assert "as private as the data" in done.out
    assert read_shadows(out).sha256 == read_shadows(shadows).sha256
    again = command(*arguments, "--models", 8)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "go on with --resume" in again.err
