"""A whole study of the smallest size, which is interrupted twice and goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from attnpriv.audit import subject
from attnpriv.audit.subject import AuditOptions
from attnpriv.config import BOUNDED, AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.data.splits import Split, split_rows, split_rule
from attnpriv.errors import InputError
from attnpriv.jobs import ProcessPool
from attnpriv.runs.folder import CARD, WEIGHTS, load_run
from attnpriv.study import CELLS, WHOLE, Design, run_study
from attnpriv.training import train
from attnpriv.training.features import FeatureFolder
from attnpriv.work_folder import LOCK, hold_lock

SOURCE, SEEDS = "tickets:rows=150", 3
SMALL = AuditOptions(
    documents=30,
    members=30,
    ig_documents=2,
    ig_steps=4,
    faithfulness_documents=2,
    sensitivity_documents=1,
    counterfactual_documents=6,
    memorisation_documents=6,
    pgd_documents=2,
    text_attack_documents=1,
    permutations=20,
    resamples=20,
    examples=0,
)
# Large batches of few steps, for which the accountant takes little time.
FITTING: dict[str, Any] = {"trainable": "head", "steps": 3, "batch_size": 100}
DESIGN = Design(
    attention=AttentionConfig(2.0, 0.97, "norm"),
    privacy=PrivacyConfig(8.0, delta=1e-3, noise_seed=0),
    config=TrainConfig(**FITTING),
    audit=SMALL,
)
COMMAND = [
    "study", "--data", SOURCE, "--epsilon", "8", "--delta", "1e-3", "--noise-seed", "0",
    "--temperature", "2", "--clip", "0.97", "--clip-mode", "norm",
    "--trainable", "head", "--steps", "3", "--batch-size", "100", "--documents", "30",
]  # fmt: skip
# Where each measure stands in a result of audit.json, and from which of its parts, written out once
# more.
PLACES: dict[str, tuple[str, Callable[[Any], float]]] = {
    "accuracy": ("utility", lambda part: part["accuracy"]["value"]),
    "macro F1": ("utility", lambda part: part["macro_f1"]["value"]),
    "attention lift on personal data": (
        "attention",
        lambda part: part["overall"]["lift"]["value"],
    ),
    "attention lift over like words nearby": (
        "attention",
        lambda part: part["matched"]["lift"]["value"],
    ),
    "lift of integrated gradients": (
        "attribution",
        lambda part: part["lift"]["lift"]["value"],
    ),
    "largest attention weight": ("attention", lambda part: part["certificate"]["largest_weight"]),
    "proved bound on attention weights": (
        "attention",
        lambda part: part["certificate"]["largest_weight_bound"],
    ),
    "rank correlation of attention and integrated gradients": (
        "faithfulness",
        lambda part: part["rank_correlation"]["mean"]["value"],
    ),
    "answers changed by swapping personal data": (
        "counterfactual",
        lambda part: part["overall"]["swap"]["flips"]["value"],
    ),
    "answers changed by swapping other words": (
        "counterfactual",
        lambda part: part["overall"]["swap_null"]["flips"]["value"],
    ),
    "change by swapping, beyond other words": (
        "counterfactual",
        lambda part: part["overall"]["excess"]["value"],
    ),
    "change by swapping personal data": (
        "counterfactual",
        lambda part: part["overall"]["swap"]["change"]["value"],
    ),
    "extra log-odds lost on values seen in training": (
        "memorisation",
        lambda part: part["difference"]["value"],
    ),
    "membership AUC": ("membership", lambda part: part["auc"]["value"]),
    "accuracy under the strongest attack at 0.02 sd": (
        "robustness",
        lambda part: part["radii"][1]["strongest"]["value"],
    ),
}
ALWAYS = set(PLACES) - {
    "proved bound on attention weights",  # where logits are clipped
    # Controls fail on so few documents.
    "rank correlation of attention and integrated gradients",
    "change by swapping personal data",
    "answers changed by swapping personal data",
    "answers changed by swapping other words",
    "change by swapping, beyond other words",
    "extra log-odds lost on values seen in training",
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(SOURCE)


class Story(NamedTuple):
    """A study that was interrupted twice, and what there was of it then."""

    out: Path
    after_training: set[str]
    after_audit: set[str]
    last_stages: list[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Story:
    out = tmp_path_factory.mktemp("study") / "study"
    stages: list[str] = []

    def go(stop: Callable[[str, int], bool], **options: Any) -> None:
        """Run until a stage and a number."""

        def progress(stage: str, done: int, total: int) -> None:
            stages.append(stage)
            assert 0 <= done <= total
            if stop(stage, done):
                raise KeyboardInterrupt

        stages.clear()
        run_study(data, out, DESIGN, progress=progress, **options)

    def is_training(stage: str) -> bool:
        return stage.endswith(": training")

    with pytest.raises(KeyboardInterrupt):
        go(lambda stage, done: stage == "private-seed0: training" and done == 2)
    after_training = folders(out)
    with pytest.raises(KeyboardInterrupt):
        go(lambda stage, _: stage != WHOLE and not is_training(stage), resume=True)
    after_audit = folders(out)
    go(lambda *_: False, resume=True)
    return Story(out, after_training, after_audit, stages)


@pytest.fixture(scope="module")
def finished(story: Story) -> Path:
    return story.out


@pytest.fixture(scope="module")
def study(finished: Path) -> dict[str, Any]:
    return read(finished / "study.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def folders(out: Path) -> set[str]:
    """The folders of runs, finished or not, and of audits."""
    return {path.name for path in (*out.glob("runs/*"), *out.glob("seed*"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.exhaustive
def test_each_seed_has_four_runs_with_one_split_and_what_its_cell_says(
    finished: Path, data: Dataset
) -> None:
    for seed in range(SEEDS):
        runs = {c.name: load_run(finished / "runs" / f"{c.name}-seed{seed}") for c in CELLS}
        splits = [run.split(data) for run in runs.values()]
        assert splits == [Split(*split_rows(data.texts, split_rule(0.8, seed)), unknown=[])] * 4
        for cell in CELLS:
            attention = runs[cell.name].model.config.attention
            expected = (2.0, 0.97) if cell.hardened else (1.0, None)
            assert (attention.temperature, attention.clip) == expected
            card = runs[cell.name].card
            assert (card.epsilon is not None) == cell.private
            assert card.training.steps == 3
        # The head alone was trained: what the encoder began with is what it has.
        weights = [run.model.blocks[0].attention.qkv.weight for run in runs.values()]
        assert all(bool((each == weights[0]).all()) for each in weights)
    assert len(list((finished / "runs").iterdir())) == SEEDS * 4


@pytest.mark.exhaustive
def test_the_audits_of_a_seed_are_of_its_four_runs_on_the_same_rows(finished: Path) -> None:
    for seed in range(SEEDS):
        audit = read(finished / f"seed{seed}" / "audit.json")
        assert [r["name"] for r in audit["results"]] == [f"{c.name}-seed{seed}" for c in CELLS]
        assert [c["not_run"] for c in audit["comparisons"]] == [None] * 3
        assert audit["options"]["seed"] == seed
        assert (finished / f"seed{seed}" / "report.html").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", PLACES)
def test_figures_are_those_of_the_audits(finished: Path, study: Any, name: str) -> None:
    part, figure = PLACES[name]
    audits = [read(finished / f"seed{seed}" / "audit.json") for seed in range(SEEDS)]
    valid = [[r[part].get("valid", True) for r in audit["results"]] for audit in audits]
    table = [[figure(r[part]) for r in audit["results"]] for audit in audits]
    (measure,) = [m for m in study["measures"] if m["name"] == name]
    assert measure["values"] == {
        cell.name: [row[i] if ok[i] else None for row, ok in zip(table, valid, strict=True)]
        for i, cell in enumerate(CELLS)
    }
    lacking = [run for runs in measure["values"].values() for run in runs if run is None]
    assert len(measure["missing"]) == len(lacking)
    if lacking:
        assert name not in ALWAYS
        undefined = {"value": None, "low": None, "high": None}
        assert list(measure["effects"].values()) == [undefined] * 3
        return
    plain, hardened, private, both = np.array(table).T
    assert list(measure["means"].values()) == pytest.approx(np.mean(table, axis=0).tolist())
    effects = {
        "hardening": ((hardened - plain) + (both - private)) / 2,
        "privacy": ((private - plain) + (both - hardened)) / 2,
        "interaction": (both - private) - (hardened - plain),
    }
    for effect, of_seeds in effects.items():
        low, high = of_seeds.mean(), of_seeds.mean()
        if of_seeds.std() > 1e-12:  # SciPy makes no interval of equal values
            low, high = ttest_1samp(of_seeds, 0).confidence_interval(0.95)
        expected = {"value": of_seeds.mean(), "low": low, "high": high}
        assert measure["effects"][effect] == pytest.approx(expected, abs=1e-9)


@pytest.mark.exhaustive
def test_only_hardened_cells_have_a_certified_bound(study: Any) -> None:
    (bound,) = [m for m in study["measures"] if m["name"] == "proved bound on attention weights"]
    (largest,) = [m for m in study["measures"] if m["name"] == "largest attention weight"]
    assert [m["run"].rpartition("-")[0] for m in bound["missing"]] == ["plain", "private"] * 3
    assert {m["reason"] for m in bound["missing"]} == {"there is none"}
    for cell in ("hardened", "private-and-hardened"):
        assert largest["means"][cell] < bound["means"][cell] < 1


@pytest.mark.exhaustive
def test_study_json_states_what_was_done_and_what_it_costs(study: Any, finished: Path) -> None:
    assert (study["schema_version"], study["data"], study["seeds"]) == (1, "tickets", [0, 1, 2])
    assert study["settings"]["attention clip"] == 0.97
    assert study["settings"]["seeds"] == 3
    assert len(study["runs"]) == 12
    # The noise seed is known, so that no run is private; see test_effects for those that are.
    assert study["composition"] == {
        "private_runs": 0,
        "epsilon": None,
        "delta": None,
        "runs_without_epsilon": 12,
    }
    page = (finished / "study.md").read_text(encoding="utf-8")
    assert "void: noise seed" in page
    assert "They do not cover other data" in page


@pytest.mark.exhaustive
def test_neither_file_has_a_record_or_the_noise_seed(finished: Path, data: Dataset) -> None:
    assert data.spans is not None
    secrets = {
        text[span.start : span.end]
        for text, spans in zip(data.texts, data.spans, strict=True)
        for span in spans
    }
    for name in ("study.json", "study.md"):
        page = (finished / name).read_text(encoding="utf-8")
        assert not [secret for secret in secrets if len(secret) > 4 and secret in page]
        assert "noise_seed" not in page.replace("\\", "")
    assert (finished / "settings.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.exhaustive
def test_an_interrupted_study_keeps_what_is_complete_and_does_only_the_rest(story: Story) -> None:
    assert story.after_training == {"plain-seed0", "hardened-seed0", ".private-seed0.partial"}
    assert story.after_audit == {f"{cell.name}-seed0" for cell in CELLS}
    trained = {stage for stage in story.last_stages if stage.endswith(": training")}
    assert trained == {f"{c.name}-seed{seed}: training" for c in CELLS for seed in (1, 2)}
    assert folders(story.out) == {
        *(f"{c.name}-seed{seed}" for c in CELLS for seed in range(SEEDS)),
        *(f"seed{seed}" for seed in range(SEEDS)),
    }
    assert not (story.out / "features").exists(), "they are private, and no longer needed"


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1])
def test_interrupted_or_not_a_run_is_what_training_it_alone_gives(
    finished: Path, data: Dataset, tmp_path: Path, seed: int
) -> None:
    name = f"private-seed{seed}"  # of seed 0 it was interrupted
    train(
        data,
        tmp_path / name,
        encoder="scratch",
        attention=AttentionConfig(clip_mode="norm"),
        config=TrainConfig(**FITTING, seed=seed),
        privacy=PrivacyConfig(8.0, delta=1e-3, noise_seed=seed),
        features=FeatureFolder(tmp_path / "features"),  # as all runs of a study: the same bits
    )
    for file in (WEIGHTS, CARD):
        ours, theirs = (folder / name / file for folder in (finished / "runs", tmp_path))
        assert ours.read_bytes() == theirs.read_bytes(), file


@pytest.mark.exhaustive
def test_a_finished_study_is_left_as_it_is(finished: Path, data: Dataset) -> None:
    before = contents(finished)
    stages: dict[str, tuple[int, int]] = {}
    run_study(
        data, finished, DESIGN, resume=True, progress=lambda s, *done: stages.update({s: done})
    )
    assert stages == {WHOLE: (15, 15)}
    assert contents(finished) == before


@pytest.mark.exhaustive
def test_audits_in_other_processes_give_the_same_bytes(
    finished: Path, data: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "seed1")
    run_study(data, out, DESIGN, resume=True, executor=ProcessPool(2))
    assert contents(out) == contents(finished)


@pytest.mark.exhaustive
def test_the_command_prints_the_tables_or_the_file(
    command: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as it is, but for how much an audit measures."""
    monkeypatch.setattr(subject, "AuditOptions", lambda **given: replace(SMALL, **given))
    printed = command(*COMMAND, "--out", finished, "--resume", "--json")
    assert printed.code == 0, printed.err
    assert printed.out == (finished / "study.json").read_text(encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    shown = command(*COMMAND, "--out", finished, "--resume")
    assert "membership AUC" in shown.out
    assert "interaction" in shown.out
    assert "No run is private." in shown.out


BAD = {
    "two seeds": (["--seeds", "2"], "at least 3 seeds, got 2"),
    "no number as clip": (["--clip", "none"], "number"),
    "a clip of zero": (["--clip", "0"], "clip"),
    "no privacy": (["--epsilon", "none"], "'--epsilon': expected a valid number, got 'none'"),
    "an epsilon in words": (["--epsilon", "much"], "'much'"),
    "delta of 1/N": (["--delta", "0.01"], "got 0.01"),
    "unknown data": (["--data", "reviews"], "reviews"),
    "a missing file": (["--data", "nowhere.tsv"], "nowhere.tsv"),
    "unknown encoder": (["--encoder", "bert-huge"], "'bert-huge'"),
    "a block too many": (["--trainable", "last:9"], "last"),
    "a batch larger than the data": (["--batch-size", "121"], "got 121"),
    "no documents": (["--documents", "0"], "documents"),
    "nothing to resume": (["--resume"], "expected an unfinished study"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_any_work(command: Any, tmp_path: Path, case: str) -> None:
    options, named = BAD[case]
    outcome = command(*COMMAND, "--out", tmp_path / "study", *options)
    assert outcome.code == 2
    assert named in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--epsilon", "--data", "--out"])
def test_what_is_missing_is_a_usage_error(command: Any, tmp_path: Path, option: str) -> None:
    given = [*COMMAND, "--out", str(tmp_path / "study")]
    at = given.index(option)
    outcome = command(*given[:at], *given[at + 2 :])
    assert outcome.code == 2
    assert option in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_bounded_encoder_brings_the_bound_and_has_its_plain_one_beside_it() -> None:
    design = replace(DESIGN, attention=None, encoder="minilm-bounded")
    for cell in CELLS:
        assert design.encoder_of(cell) == ("minilm-bounded" if cell.hardened else "minilm")
        assert design.attention_of(cell) == (BOUNDED if cell.hardened else AttentionConfig())
    assert {DESIGN.encoder_of(cell) for cell in CELLS} == {"scratch"}
    other = replace(design, plain_encoder="scratch")
    assert other.encoder_of(CELLS[0]) == "scratch"


def test_a_design_without_a_bound_or_with_a_noise_of_its_own_is_refused() -> None:
    with pytest.raises(InputError, match="expected clip as a number"):
        replace(DESIGN, attention=AttentionConfig(temperature=2.0))
    with pytest.raises(InputError, match="expected clip as a number"):
        replace(DESIGN, attention=None)
    with pytest.raises(InputError, match="expected a plain_encoder beside the bounded encoder"):
        replace(DESIGN, attention=None, encoder="minilm-bounded", plain_encoder="minilm-bounded")
    with pytest.raises(InputError, match="expected no noise_multiplier"):
        replace(DESIGN, privacy=PrivacyConfig(8.0, noise_multiplier=1.0))


def test_several_processes_are_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="in one process, got 2"):
        run_study(data, tmp_path / "study", DESIGN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_a_second_process_at_the_same_study_is_refused(finished: Path, data: Dataset) -> None:
    with hold_lock(finished, "study"):  # as the first one does
        with pytest.raises(InputError, match="another process is at work on the study in .*study"):
            run_study(data, finished, DESIGN, resume=True)
        (finished / LOCK).unlink()


@pytest.mark.exhaustive
def test_a_folder_that_exists_or_is_of_another_study_is_refused(
    finished: Path, data: Dataset
) -> None:
    before = contents(finished)
    with pytest.raises(InputError, match="exists already: give a new folder, or go on with"):
        run_study(data, finished, DESIGN)
    others = {
        "attention clip is 0.97, this command's is 1.5": replace(
            DESIGN, attention=AttentionConfig(2.0, 1.5, "norm")
        ),
        "seeds is 3, this command's is 4": replace(DESIGN, seeds=4),
        "training steps is 3, this command's is 5": replace(
            DESIGN, config=TrainConfig(**{**FITTING, "steps": 5})
        ),
        "audit documents is 30, this command's is 40": replace(
            DESIGN, audit=replace(SMALL, documents=40)
        ),
    }
    for message, other in others.items():
        with pytest.raises(InputError, match=message):
            run_study(data, finished, other, resume=True)
    with pytest.raises(InputError, match="its data is"):
        run_study(load_dataset("tickets:rows=150,seed=1"), finished, DESIGN, resume=True)
    assert contents(finished) == before


@pytest.mark.exhaustive
def test_a_run_of_another_cell_or_a_damaged_one_is_refused(
    finished: Path, data: Dataset, tmp_path: Path
) -> None:
    out = copy(finished, tmp_path / "study")
    hardened = out / "runs" / "hardened-seed0"
    shutil.rmtree(hardened)
    copy(out / "runs" / "plain-seed0", hardened)
    with pytest.raises(InputError, match="hardened-seed0: its attention is"):
        run_study(data, out, DESIGN, resume=True)
    (hardened / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match="does not match the manifest"):
        run_study(data, out, DESIGN, resume=True)
    (out / "settings.json").write_text("[]")
    with pytest.raises(InputError, match="does not hold the settings of a study"):
        run_study(data, out, DESIGN, resume=True)
