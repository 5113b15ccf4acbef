from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attnpriv.data import Dataset
from attnpriv.errors import InputError, RunFolderError
from attnpriv.prediction import predict_probabilities
from attnpriv.run_folder import list_runs, load_run, staged_run, write_file


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


def test_a_staged_run_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with pytest.raises(RuntimeError), staged_run(target) as staging:
        write_file(staging / "config.json", b"{}")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with staged_run(target) as staging:
        write_file(staging / "config.json", b"{}")
        assert not target.exists()
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "manifest.json"]
    with pytest.raises(InputError, match="exists already"), staged_run(target):
        pass


def test_an_unwritable_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot write a run folder"),
        staged_run(tmp_path / "file" / "run"),
    ):
        pass
