"""Real run folders, trained once a session, small enough to be made in seconds."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.grids import mark_the_rest
from tests.shapes import check_shapes

check_shapes()  # before anything imports what is checked

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.training import train

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Two noisy cores: no deadlines, and the same examples in every run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)  # before ``-m`` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_the_rest(items)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and two cores are soon oversubscribed."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Processes that tests interrupt hear it, though the tests were started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout, where a machine has it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tickets() -> Dataset:
    return load_dataset("tickets:rows=300")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tickets: Dataset) -> Path:
    """A folder with two runs: ``tiny`` without privacy and unclipped, ``private`` with both.

    The noise of ``private`` is the operating system's, or it would not be a private model: no test
    may depend on its weights.
    """
    folder = tmp_path_factory.mktemp("runs")
    train(
        tickets,
        folder / "tiny",
        encoder="scratch",
        attention=AttentionConfig(),
        config=TrainConfig(trainable="all", steps=12),
        privacy=None,
    )
    train(
        tickets,
        folder / "private",
        encoder="scratch",
        attention=AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm"),
        config=TrainConfig(trainable="last:1", steps=3),
        privacy=PrivacyConfig(epsilon=3.0),
    )
    return folder


@pytest.fixture(scope="session")
def tiny_run(runs: Path) -> Path:
    return runs / "tiny"


@pytest.fixture(scope="session")
def private_run(runs: Path) -> Path:
    return runs / "private"
