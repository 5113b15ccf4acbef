"""A search that pays for itself: what it states, what it leaves, and what it does not."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, Texts, save_dataset
from attnpriv.data.splits import Split, split_rows
from attnpriv.errors import InputError
from attnpriv.jobs import Crew, Executor, Job, Note, ProcessPool
from attnpriv.privacy.ledger import Ledger
from attnpriv.privacy.selection import (
    RunCount,
    epsilon_of_selection,
    rdp_of_run,
)
from attnpriv.runs.card import CardHeldOut
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.training import Candidate, TrainingResult, preparation, tune
from attnpriv.training.candidates import default_candidates, load_candidates
from attnpriv.training.release import count_correct

SEARCH = sys.modules["attnpriv.training.tune"]  # the name in the package is the function's
RUNS = sys.modules["attnpriv.training.search"]
FILES = {"config.json", "manifest.json", "model.safetensors", "model_card.json", "model_card.md"}


@pytest.fixture(scope="module")
def data(tickets: Dataset) -> Dataset:
    return tickets.subset(range(101))


def parts(data: Dataset, share: float = 0.2, salt: str = "attnpriv") -> tuple[list[int], list[int]]:
    rule = {"rule": "content", "validation_share": share, "salt": salt}
    return split_rows(data.texts, rule)


def whole_batches(data: Dataset, **settings: Any) -> Candidate:
    """A candidate with q = 1, whose Rényi DP has a closed form: the accountant takes no time."""
    return Candidate(TrainConfig(**{"steps": 3, "batch_size": len(parts(data)[0]), **settings}))


def search(data: Dataset, out: Path, **changes: Any) -> TrainingResult:
    options: dict[str, Any] = {
        "encoder": "scratch",
        "attention": AttentionConfig(),
        "candidates": [whole_batches(data), whole_batches(data, steps=5, head_learning_rate=0.5)],
        "privacy": PrivacyConfig(8.0, delta=1e-3, noise_seed=0),
        "mean_runs": 3,
    }
    return tune(data, out, **{**options, **changes})


def ledger_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "privacy_ledger.jsonl").read_text().splitlines()]


class Noise(NamedTuple):
    noise_multipliers: tuple[float, ...]
    score_noise: float


@pytest.fixture
def given_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where q is below 1, to look for the noise takes its time."""
    monkeypatch.setattr(
        SEARCH, "noise_for_selection", lambda *args: Noise((3.0,) * len(args[3]), 1.0)
    )


Draws = Callable[[int], None]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Make the secret number of runs a known one."""
    return lambda runs: monkeypatch.setattr(RunCount, "draw", lambda self, stream=None: runs)


def test_the_ledger_holds_what_the_epsilon_of_the_search_follows_from(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws(2)
    card = search(data, tmp_path / "run", mean_runs=4, distribution="geometric").card
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES | {"privacy_ledger.jsonl"}
    assert json.loads((tmp_path / "run" / "model_card.json").read_text()) == card.as_written
    (entry, *others) = ledger_of(tmp_path / "run")
    assert entry["entry"] == "selection"
    assert [other["what"] for other in others] == list(card.not_covered), "and no noised_steps"
    spent = ("noise_multiplier", "sample_rate", "steps")
    candidates = [tuple(candidate[name] for name in spent) for candidate in entry["candidates"]]
    epsilon = epsilon_of_selection(
        RunCount(entry["mean_runs"], entry["distribution"]),
        rdp_of_run(candidates, entry["score_noise"]),
        entry["delta"],
    )
    assert 7.9 < epsilon <= 8.0
    assert epsilon == entry["epsilon"] == card.epsilon == card.privacy.epsilon_rdp
    assert (entry["validation_share"], entry["salt"]) == (0.2, "attnpriv")
    privacy = card.privacy
    assert (privacy.accountant, privacy.epsilon_by, privacy.epsilon_prv) == ("rdp", "rdp", None)
    assert (privacy.noise_multiplier, 1.0, privacy.steps) in candidates
    assert "best of a random number of runs (Papernot and Steinke" in privacy.mechanism
    assert not card.private, "its noise seed is known"
    # The command on the card prints the same ε.
    text = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    (command,) = [line for line in text.splitlines() if line.startswith("python -c ")]
    monkeypatch.chdir(tmp_path / "run")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(shlex.split(command)[2], {})
    assert float(out.getvalue()) == epsilon


def test_an_unseeded_search_is_private_and_never_the_same(
    data: Dataset, tmp_path: Path, draws: Draws
) -> None:
    draws(1)
    privacy = PrivacyConfig(8.0, delta=1e-3)
    cards = [search(data, tmp_path / name, privacy=privacy).card for name in ("a", "b")]
    assert cards[0].private
    assert cards[0].warnings == ()
    assert "training or validation record" in cards[0].statement
    assert cards[0].privacy.selection.score != cards[1].privacy.selection.score
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] != weights[1]


def test_a_noise_seed_repeats_all_of_a_search_with_poisson_batches(
    data: Dataset, tmp_path: Path, given_noise: None
) -> None:
    rare = [Candidate(TrainConfig(steps=4, batch_size=20, head_learning_rate=r)) for r in (0.1, 1)]
    for parent in ("a", "b"):
        search(data, tmp_path / parent / "run", candidates=rare)
    for name in FILES:
        first, second = (tmp_path / parent / "run" / name for parent in ("a", "b"))
        assert first.read_bytes() == second.read_bytes(), name


def test_the_files_depend_on_the_number_of_runs_by_the_winner_alone(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runs in (1, 4):
        # The first run is the best: each scores worse than the last. Then the card asks once more.
        counts = iter([*(900, 800, 700, 600)[:runs], 5])
        monkeypatch.setattr(RUNS, "count_correct", lambda *_, counts=counts: next(counts))
        draws(runs)
        search(data, tmp_path / str(runs) / "run")
    for path in (tmp_path / "1" / "run").iterdir():
        assert path.read_bytes() == (tmp_path / "4" / "run" / path.name).read_bytes(), path.name


@dataclass(frozen=True)
class LastFirst:
    """Does pieces as another process would, by pickle, and the last one first."""

    @contextlib.contextmanager
    def crew(self, job: Job[Any]) -> Iterator[Crew[Any]]:
        do = pickle.loads(pickle.dumps(job.packed())).begin()

        def have_done(pieces: Iterable[Any], note: Note[Any]) -> Iterator[tuple[Any, bytes]]:
            for piece in reversed(list(pieces)):
                sent = pickle.loads(pickle.dumps(piece))
                yield piece, do(sent, partial(note, piece))

        yield have_done


@pytest.mark.parametrize(
    "executor",
    [
        LastFirst(),
        pytest.param(ProcessPool(2), marks=pytest.mark.exhaustive, id="processes"),
    ],
)
@pytest.mark.parametrize(
    "trainable", ["head", pytest.param("lora:2", marks=pytest.mark.exhaustive)]
)
def test_runs_made_elsewhere_give_the_same_folder(
    data: Dataset, tmp_path: Path, draws: Draws, executor: Executor, trainable: str
) -> None:
    draws(4)
    settings = [whole_batches(data, trainable=trainable, steps=steps) for steps in (2, 3)]
    steps = set()
    for parent, makes in (("here", None), ("there", executor)):
        search(
            data,
            tmp_path / parent / "run",
            candidates=settings,
            executor=makes,
            on_step=lambda *step: steps.add(step),
        )
    assert steps <= {(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)}
    for path in (tmp_path / "here" / "run").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / "run" / path.name).read_bytes(), path.name


def test_of_equal_scores_the_first_drawn_wins_wherever_it_is_made(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws(4)
    attempt = RUNS._attempt
    monkeypatch.setattr(RUNS, "_attempt", lambda *given: replace(attempt(*given), score=5.0))
    for parent, makes in (("here", None), ("there", LastFirst())):
        search(data, tmp_path / parent / "run", executor=makes)
    first, second = (
        (tmp_path / p / "run" / "manifest.json").read_bytes() for p in ("here", "there")
    )
    assert first == second


def test_no_run_at_all_releases_the_untrained_model_and_says_so(
    data: Dataset, tmp_path: Path, draws: Draws
) -> None:
    first = whole_batches(data, trainable="lora:2", seed=3)
    draws(0)
    card = search(data, tmp_path / "none", candidates=[first]).card
    with preparation.seeded(3):
        untrained = preparation.build_classifier("scratch", AttentionConfig(), "layers", False, 10)
    weights = load_run(tmp_path / "none").model.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in untrained.model.state_dict().items())
    assert any("UNTRAINED" in warning for warning in card.warnings)
    assert card.privacy.selection.score is None
    assert card.privacy.steps == card.training.steps == 0
    assert "UNTRAINED" in (tmp_path / "none" / "model_card.md").read_text(encoding="utf-8")
    draws(1)
    search(data, tmp_path / "one", candidates=[first])
    ledgers = [(tmp_path / name / "privacy_ledger.jsonl").read_bytes() for name in ("none", "one")]
    assert ledgers[0] == ledgers[1], "what was paid for is the same"


def test_whatever_ends_a_search_early_leaves_nothing(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: int, steps: int) -> None:
        if (step, steps) == (5, 5):
            assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]
            raise KeyboardInterrupt

    draws(20)
    with pytest.raises(KeyboardInterrupt):
        search(data, tmp_path / "run", on_step=interrupt)
    assert list(tmp_path.iterdir()) == []

    def disk_is_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    draws(1)
    monkeypatch.setattr(SEARCH, "write_release", disk_is_full)
    with pytest.raises(InputError, match="No space left.*the search released nothing"):
        search(data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    draws(1)
    search(data, tmp_path / "run")
    assert [entry["entry"] for entry in ledger_of(tmp_path / "run")].count("selection") == 1


def test_one_record_more_leaves_every_other_one_in_its_part(data: Dataset) -> None:
    training, validation = (set(map(data.texts.__getitem__, part)) for part in parts(data))
    for extra in ("one more", "and another", "a third", data.texts[0]):
        texts, labels = (extra, *data.texts), (0, *data.labels)
        more = Texts(data.name, texts, labels, data.label_names)
        rows, held_out = (set(map(texts.__getitem__, part)) for part in parts(more))
        assert rows - {extra} == training - {extra}
        assert held_out - {extra} == validation - {extra}


def test_a_clearly_best_candidate_mostly_wins(data: Dataset, tmp_path: Path) -> None:
    settings = [whole_batches(data, steps=12, head_learning_rate=rate) for rate in (1e-6, 0.3)]
    won = 0
    for seed in range(4):
        privacy = PrivacyConfig(200.0, delta=1e-3, noise_seed=seed)
        options = {"candidates": settings, "privacy": privacy, "mean_runs": 5}
        card = search(data, tmp_path / str(seed), **options).card
        won += card.training.head_learning_rate == 0.3
    assert won >= 3


def test_the_frozen_encoder_reads_each_row_once_for_all_runs(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pooled_features = preparation.pooled_features

    def counting(model: Any, modality: Any, samples: Any) -> Any:
        read.append(len(samples))
        return pooled_features(model, modality, samples)

    monkeypatch.setattr(preparation, "pooled_features", counting)
    draws(7)
    search(data, tmp_path / "run")
    assert sorted(read) == sorted(map(len, parts(data)))


@pytest.mark.parametrize("trainable", ["head", "bias", "lora:2"])
def test_the_held_out_rows_of_a_tuned_run_are_its_validation_rows(
    data: Dataset, tmp_path: Path, draws: Draws, trainable: str
) -> None:
    draws(1)
    batch_size = len(parts(data, salt="another")[0])
    candidates = [whole_batches(data, trainable=trainable, steps=2, batch_size=batch_size)]
    card = search(data, tmp_path / "run", candidates=candidates, salt="another").card
    run = load_run(tmp_path / "run")
    assert run.split(data) == Split(*parts(data, salt="another"), unknown=[])
    other = data.subset(range(50))
    train, validation = parts(other, salt="another")
    assert run.split(other) == Split([], validation, unknown=train)
    held_out = data.subset(run.split(data).held_out)
    predicted = predict_probabilities(run, held_out.texts).argmax(1)
    accuracy = float((predicted == np.array(held_out.labels)).mean())
    assert card.metrics.held_out == CardHeldOut(len(held_out), accuracy)
    assert not card.metrics.covered_by_epsilon
    assert card.data.rows_train == len(data) - len(held_out)


def test_a_model_that_diverged_is_scored_like_any_other(
    data: Dataset, tmp_path: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws(2)
    monkeypatch.setattr(
        RUNS, "merge_adapters", lambda model: torch.nn.init.constant_(model.head.bias, math.nan)
    )
    card = search(data, tmp_path / "run").card
    assert load_run(tmp_path / "run").model.head.bias.isnan().all()
    assert card.metrics.held_out.accuracy == 0
    selection = card.privacy.selection
    assert 0 < abs(selection.score) < 9 * selection.score_noise


def test_each_row_moves_the_count_by_at_most_one_whatever_the_weights_are() -> None:
    with preparation.seeded(0):
        model = preparation.build_classifier("scratch", AttentionConfig(), "mean", False, 3).model
    features, labels = torch.randn(7, 128), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    for weight in (0.0, math.nan, math.inf, 3e38):
        with torch.no_grad():
            model.head.weight.fill_(weight)
        features[3] = math.inf
        whole = count_correct(model, features, labels)
        assert 0 <= whole <= 7
        for row in range(7):
            rest = [i for i in range(7) if i != row]
            alone = count_correct(model, features[rest], labels[rest])
            assert whole - 1 <= alone <= whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": []}, "all candidates to have one seed, got 0 seeds"),
        ({"candidates": [Candidate(TrainConfig(seed=s)) for s in (0, 1)]}, "one seed, got 2"),
        ({"privacy": PrivacyConfig(1.0, noise_multiplier=2.0)}, "no noise_multiplier.*got 2.0"),
        ({"privacy": PrivacyConfig(1.0, delta=1 / 101)}, r"delta below 1/N = 0.0099.*101 rows"),
        ({"candidates": [Candidate(TrainConfig(batch_size=101))]}, "batch_size at most the .* 101"),
        ({"candidates": [Candidate(TrainConfig(trainable="last:9"))]}, "at most last:2"),
        ({"mean_runs": 0.5}, "mean from 1 to 10000, got 0.5"),
        ({"distribution": "uniform"}, "poisson, geometric, got 'uniform'"),
        ({"validation_share": 1.0}, r"share in \(0, 1\), got 1.0"),
        ({"validation_share": 1e-9}, "rows to hold out, got 1e-09 of 101 rows"),
        ({"salt": ""}, "salt of 1 to 64 bytes, got 0"),
        ({"encoder": "bert-huge"}, "minilm-bounded, words or a folder, got 'bert-huge'"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    data: Dataset, tmp_path: Path, given_noise: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(data, tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_search_in_several_processes_and_one_class_are_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = data.subset([i for i, label in enumerate(data.labels) if label == 0])
    with pytest.raises(InputError, match="at least two classes"):
        search(one, tmp_path / "run", validation_share=0.5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="a search in one process, got 2"):
        search(data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


GRID = """
[grid]
head_learning_rate = [0.1, 1]
steps = [5, 7, 11]

[[candidate]]
trainable = "lora:4"
learning_rate = 1e-3
decay = "cosine"
max_grad_norm = 1
clipping = "automatic"

[[candidate]]
"""


def test_a_file_gives_its_grid_and_then_its_tables(tmp_path: Path) -> None:
    file = tmp_path / "candidates.toml"
    file.write_text(GRID)
    common = TrainConfig(batch_size=13, seed=2)
    *grid, adapters, plain = load_candidates(file, common)
    settings = [(c.config.head_learning_rate, c.config.steps, c.config.batch_size) for c in grid]
    assert settings == [(r, s, 13) for r in (0.1, 1.0) for s in (5, 7, 11)]
    assert plain == Candidate(common)
    assert (adapters.config.trainable, adapters.config.decay) == ("lora:4", "cosine")
    privacy = adapters.privacy(PrivacyConfig(3.0, max_grad_norm=0.5))
    assert (privacy.max_grad_norm, privacy.clipping, privacy.epsilon) == (1.0, "automatic", 3.0)
    assert plain.privacy(PrivacyConfig(3.0, max_grad_norm=0.5)).max_grad_norm == 0.5


BAD_FILES = {
    "": "expected 1 to 1000 candidates in .*, got 0",
    "[grid]": "got 0",
    "grid = 3": "expected grid as a table, .*, got 3",
    "candidate = 3": "expected candidate as a list of tables",
    "[grid]\nsteps = []": r"expected grid steps as a list of one value or more, got \[\]",
    "[grid]\nsteps = 5": "expected grid steps as a list of one value or more, got 5",
    "[grid]\nepochs = [5]": "unknown 'epochs', expected trainable, steps",
    "[grids]\nsteps = [5]": "unknown 'grids', expected grid, candidate",
    "[[candidate]]\nsteps = 0": "expected steps to be a whole number from 1 to 1000000000, got 0",
    "[[candidate]]\nsteps = 1.5": "expected steps as int, got 1.5",
    "[[candidate]]\nsteps = true": "expected steps as int, got True",
    "[[candidate]]\nlearning_rate = '1'": "expected learning_rate as float, got '1'",
    "[[candidate]]\nlearning_rate = nan": "expected learning_rate > 0 and at most .*, got nan",
    f"[[candidate]]\nlearning_rate = 1{'0' * 400}": "expected learning_rate > 0 and at most",
    "[[candidate]]\nmax_grad_norm = 0": "expected max_grad_norm >= 1e-06 and at most",
    "[[candidate]]\nclipping = 'hard'": "expected clipping to be one of flat, automatic, got 'h",
    "[[candidate]]\ntrainable = 'tail'": "got 'tail'",
    "[grid": "cannot read candidates",
    f"[grid]\nsteps = {list(range(1, 101))}\nwarmup = {[i / 11 for i in range(11)]}": "got 1100",
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "candidates.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=BAD_FILES[content]) as error:
        load_candidates(file, TrainConfig())
    assert str(file) in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes("# é".encode("latin-1"))
    (tmp_path / "deep.toml").write_text("a = " + "[" * 3000 + "]" * 3000)
    for name in ("latin.toml", "deep.toml", "missing.toml", "."):
        with pytest.raises(InputError, match="cannot read candidates"):
            load_candidates(tmp_path / name, TrainConfig())


Run = Callable[..., Any]


@pytest.fixture
def file(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tickets.jsonl"
    save_dataset(data, path)
    return path


def test_the_command_tunes_and_evaluate_takes_the_validation_rows(
    command: Run, data: Dataset, file: Path, tmp_path: Path, draws: Draws
) -> None:
    candidates = tmp_path / "candidates.toml"
    candidates.write_text(f"[grid]\nbatch_size = [{len(parts(data)[0])}]\nsteps = [2, 3]\n")
    draws(3)
    out = command(
        "tune", "--data", file, "--epsilon", 8, "--delta", 1e-3, "--trainable", "head",
        "--candidates", candidates, "--mean-runs", 2, "--normalise", "--out", tmp_path / "run",
    )  # fmt: skip
    assert out.code == 0, out.err
    assert load_run(tmp_path / "run").model.config.normalise
    printed = " ".join(out.out.split())
    assert "best of 2 runs expected: head, head learning rate 0.15" in printed
    assert "Trained with (" in printed
    evaluated = json.loads(command("evaluate", tmp_path / "run", "--data", file, "--json").out)
    assert evaluated["rows"] == "held-out rows of the training data"
    assert evaluated["n"] == len(parts(data)[1])
    stated = Ledger(tmp_path / "run" / "privacy_ledger.jsonl").selection()
    assert stated is not None
    assert [candidate.steps for candidate in stated.candidates] == [2, 3]


BAD_OPTIONS = {
    "no epsilon": (["--epsilon", "none"], "'none'"),
    "epsilon in words": (["--epsilon", "much"], "'much'"),
    "no such file": (["--candidates", "nowhere.toml"], "nowhere.toml"),
    "too few runs": (["--mean-runs", "0"], "got 0.0"),
    "unknown distribution": (["--distribution", "fixed"], "'fixed'"),
    "no validation": (["--validation-share", "0"], "got 0.0"),
    "no salt": (["--salt", ""], "salt"),
    "delta of 1/N": (["--delta", "0.05"], "got 0.05"),
    "unknown trainable": (["--trainable", "tail"], "'tail'"),
    "a batch of more than all": (["--batch-size", "102"], "got 102"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_one_line_and_exit_code_2(
    command: Run, file: Path, tmp_path: Path, case: str
) -> None:
    options, named = BAD_OPTIONS[case]
    out = command("tune", "--data", file, "--epsilon", 8, "--out", tmp_path / "run", *options)
    assert out.code == 2
    (error,) = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert named in error
    assert "Traceback" not in out.err
    assert list(tmp_path.iterdir()) == []


def test_help_states_the_default_grid(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = " ".join(command("tune", "--help").out.replace("│", " ").split())
    for trainable in ("head", "bias"):
        grid = default_candidates(TrainConfig(trainable=trainable))
        assert len(grid) == 6
        name = "head_learning_rate" if trainable == "head" else "learning_rate"
        rates = dict.fromkeys(getattr(candidate.config, name) for candidate in grid)
        first, second, third = (f"{rate:g}" for rate in rates)
        assert f"{name.replace('_', ' ')}s {first}, {second} and {third}" in shown
        steps = dict.fromkeys(candidate.config.steps for candidate in grid)
        assert "each with {} and with {} steps".format(*steps) in shown
