from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attnpriv.data import Dataset
from attnpriv.errors import RunFolderError
from attnpriv.prediction import predict_probabilities
from attnpriv.run_folder import CARD, LEDGER, list_runs, load_run, publish, write_json, write_model


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copy"))


def test_a_run_reads_back_as_it_was_trained(tiny_run: Path, tickets: Dataset) -> None:
    run = load_run(tiny_run)
    assert run.name == "tiny"
    assert run.label_names == tickets.label_names
    assert not run.model.training
    assert not any(p.requires_grad for p in run.model.parameters())
    train_rows, held_out_rows = run.split(tickets)
    assert train_rows is not None
    assert sorted(train_rows + held_out_rows) == list(range(len(tickets)))
    held_out = tickets.subset(held_out_rows)
    predicted = predict_probabilities(run, held_out.texts).argmax(1)
    accuracy = float((predicted == np.array(held_out.labels)).mean())
    assert accuracy == run.card["metrics"]["held_out"]["accuracy"]


def test_other_data_is_held_out_as_a_whole(tiny_run: Path, tickets: Dataset) -> None:
    other = tickets.subset(range(len(tickets) - 1))
    assert load_run(tiny_run).split(other) == (None, list(range(len(other))))


def test_predictions_do_not_depend_on_the_batch(tiny_run: Path, tickets: Dataset) -> None:
    run, texts = load_run(tiny_run), tickets.texts[:40]
    together = predict_probabilities(run, texts)
    alone = np.concatenate([predict_probabilities(run, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "model_card.json", "privacy_ledger.jsonl"]
)
def test_a_changed_byte_or_a_missing_file_is_refused_by_name(run_copy: Path, name: str) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run_copy / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{name} does not match the manifest"):
        load_run(run_copy)
    (run_copy / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        load_run(run_copy)


def rewrite_manifest(run: Path, change: dict[str, str | None]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    for name, value in change.items():
        if value is None:
            del manifest["sha256"][name]
        else:
            manifest["sha256"][name] = value
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_that_leaves_a_file_out_is_refused(run_copy: Path) -> None:
    rewrite_manifest(run_copy, {"privacy_ledger.jsonl": None})
    with pytest.raises(RunFolderError, match=r"no privacy_ledger\.jsonl in manifest"):
        load_run(run_copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}'])
def test_a_manifest_that_is_none_is_refused(run_copy: Path, content: str) -> None:
    (run_copy / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match="not a complete run folder"):
        load_run(run_copy)


def test_a_configuration_of_another_shape_is_refused(run_copy: Path) -> None:
    import hashlib

    config = json.loads((run_copy / "config.json").read_text())
    config["model"]["dim"] = 64
    (run_copy / "config.json").write_text(json.dumps(config))
    digest = hashlib.sha256((run_copy / "config.json").read_bytes()).hexdigest()
    rewrite_manifest(run_copy, {"config.json": digest})
    with pytest.raises(RunFolderError, match="not a usable run folder"):
        load_run(run_copy)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="expected a run folder, got .*nowhere"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="expected a folder of run folders"):
        list_runs(tmp_path / "nowhere")


def test_runs_are_listed_by_name_and_other_folders_are_not(runs: Path) -> None:
    (runs / "not-a-run").mkdir(exist_ok=True)
    assert [path.name for path in list_runs(runs)] == ["private", "tiny"]


@pytest.fixture
def staging(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that is about to be published."""
    run, folder = load_run(tiny_run), tmp_path / "staging"
    folder.mkdir(mode=0o700)
    write_model(folder, run.model, run.label_names, {}, None)
    write_json(folder / CARD, run.card)
    shutil.copy(tiny_run / LEDGER, folder / LEDGER)
    return folder


def test_publishing_gives_a_manifest_a_name_and_rights_to_read(
    staging: Path, tmp_path: Path
) -> None:
    (staging / LEDGER).chmod(0o600)
    (staging / ".model.safetensors.x7").write_bytes(b"half of a file")
    publish(staging, tmp_path / "run")
    assert not staging.exists()
    published = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert published == dict.fromkeys(
        (
            "config.json",
            "manifest.json",
            "model.safetensors",
            "model_card.json",
            "privacy_ledger.jsonl",
        ),
        0o644,
    )
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    run = load_run(tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())["sha256"]
    assert set(manifest) == set(published) - {"manifest.json"}


def test_a_run_folder_that_is_there_is_not_replaced(staging: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        publish(staging, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    publish(staging, tmp_path / "other")  # it was where it was, and is complete
    assert load_run(tmp_path / "other").model is not None


def test_a_number_that_is_no_json_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "card.json", {"epsilon": 3.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "card.json", {"epsilon": float("nan")})
    assert json.loads((tmp_path / "card.json").read_text()) == {"epsilon": 3.0}
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
