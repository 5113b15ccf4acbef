"""The folder of a training that is under way: whose it is, what is in it, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from attnpriv.data import Dataset, Texts
from attnpriv.errors import InputError
from attnpriv.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    has_begun,
    open_training_folder,
    training_folder,
    work_path,
)
from attnpriv.training.processes import Processes
from attnpriv.work_folder import IDENTITY

STATE = Checkpoint(3, bytes(range(32)), {"weight.0": torch.arange(5.0), "average.0": torch.ones(2)})


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def interrupt(trainings: Any, out: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainings.run(out, "head", interrupt_at=21, **options)


def test_a_saved_state_reads_back_and_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with open_training_folder(out, {"a": (1, 2.5)}, resume=False) as work:
        assert not has_begun(out)
        work.save(STATE)
        assert has_begun(out)
        read = work.load()
        assert (read.steps_taken, read.key) == (STATE.steps_taken, STATE.key)
        assert read.tensors.keys() == STATE.tensors.keys()
        assert all(torch.equal(read.tensors[name], STATE.tensors[name]) for name in read.tensors)
        folder = tmp_path / ".run.partial"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / CHECKPOINT).stat().st_mode & 0o777 == 0o600
        assert (folder / IDENTITY).stat().st_mode & 0o777 == 0o600
        later = Checkpoint(4, bytes(32), {"weight.0": torch.zeros(5)})
        work.save(later)
        assert (work.load().steps_taken, work.load().key) == (4, bytes(32))
        other = training_folder(out, {"a": (1, 3.5)})  # as another process of this training has it
        with pytest.raises(InputError, match=r"its a is \[1, 2.5\], this command's is \[1, 3.5\]"):
            other.load()
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_tensor_reads_back_whole_and_in_parts(tmp_path: Path) -> None:
    tensors = {
        "weight.0": torch.randn(5, 3, 2),
        "average.0": torch.randn(5, 2).t(),  # not as it lies in memory
        "optimizer.0.step": torch.tensor(7.0),
        "optimizer.0.exp_avg": torch.randn(2),
        "canaries.key": torch.arange(32, dtype=torch.uint8),
        "canaries.scores": torch.randn(3, dtype=torch.float64),
        "weight.1": torch.empty(0, 3),
    }
    with open_training_folder(tmp_path / "run", {}, resume=False) as work:
        work.save(Checkpoint(3, bytes(32), tensors))
        parts = []
        for rank in range(3):
            process = Processes()
            process.rank, process.count, process.sharded = rank, 3, True
            parts.append(work.load(process).tensors)
        for name, tensor in tensors.items():
            torch.testing.assert_close(work.load().tensors[name], tensor, rtol=0, atol=0)
            each = [part[name] for part in parts]
            if name.startswith(("canaries", "optimizer.0.step")):
                assert all(torch.equal(part, tensor) for part in each)
            else:
                assert torch.equal(torch.cat(each), tensor)
                assert len(each[0]) == -(-len(tensor) // 3)


def test_it_vanishes_with_an_error_only_before_the_first_step(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        open_training_folder(tmp_path / "a" / "run", {}, resume=False),
    ):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(RuntimeError),
        open_training_folder(tmp_path / "run", {}, resume=False) as work,
    ):
        work.save(STATE)
        raise RuntimeError
    left = files(tmp_path)
    names = ("lock", IDENTITY, CHECKPOINT)
    assert set(left) == {f".run.partial/{name}" for name in names}
    refused = pytest.raises(InputError, match=r"an unfinished training of .*run is in .*--resume")
    with refused, open_training_folder(tmp_path / "run", {}, resume=False):
        pass
    assert files(tmp_path) == left
    with open_training_folder(tmp_path / "run", {}, resume=True) as work:
        assert work.load().steps_taken == 3


def test_a_ledger_without_a_saved_state_is_not_forgotten(tmp_path: Path) -> None:
    """Someone removed the state: what was spent stays spent."""
    out = tmp_path / "run"
    with (
        pytest.raises(RuntimeError),
        open_training_folder(out, {}, resume=False) as work,
    ):
        work.save(STATE)
        work.ledger.write_text("{}\n")
        raise RuntimeError
    (work_path(out) / CHECKPOINT).unlink()
    with (
        pytest.raises(InputError, match="unfinished training"),
        open_training_folder(out, {}, resume=False),
    ):
        pass
    with (
        pytest.raises(InputError, match="cannot read the saved state .*No such file"),
        open_training_folder(out, {}, resume=True) as work,
    ):
        work.load()
    (work_path(out) / IDENTITY).unlink()  # and the identity as well
    for resume, message in ((False, "an unfinished training"), (True, "it has no identity.json")):
        with (
            pytest.raises(InputError, match=message),
            open_training_folder(out, {}, resume=resume),
        ):
            pass
    assert work.ledger.read_text() == "{}\n"


def test_an_unfinished_training_of_an_earlier_version_is_refused_and_kept(
    trainings: Any, tmp_path: Path
) -> None:
    """Its saved state held its identity, and no other file did."""
    work = work_path(tmp_path / "run")
    (work / "run").mkdir(parents=True)
    state = {"identity": {"data": "0"}, "steps_taken": 3, "key": "00" * 32}
    (work / CHECKPOINT).write_bytes(with_state(state))
    (work / "run" / "privacy_ledger.jsonl").write_text("{}\n")
    (work / "lock").write_text("")
    before = files(tmp_path)
    for resume, message in (
        (True, "has no identity.json that this version of attnpriv can read; .* or remove that"),
        (False, "an unfinished training of .*run is in .*partial: go on with .*--resume, or"),
    ):
        with pytest.raises(InputError, match=message):
            trainings.run(tmp_path / "run", "head", resume=resume)
    assert files(tmp_path) == before


def test_nothing_to_resume(trainings: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an unfinished training of .*run, there is none"):
        trainings.run(tmp_path / "run", "head", resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_an_existing_run_folder_is_left_alone(trainings: Any, tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "run"
    interrupt(trainings, out)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(InputError, match="expected a new run folder, .*run exists already"):
        trainings.run(out, "head", resume=resume)
    assert files(tmp_path) == before


def test_an_existing_run_folder_is_seen_before_anything_else(
    trainings: Any, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("nothing")  # no folder can be moved to its name
    for out in (tmp_path / "run", tmp_path / "link"):
        with pytest.raises(InputError, match="exists already"):
            trainings.run(out, "last:9", encoder=tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_an_unwritable_target(trainings: Any, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*partial: Not a dir|exists already"):
        trainings.run(tmp_path / place, "head")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_permissions_while_under_way_and_afterwards(trainings: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen: set[tuple[str, int]] = set()

    def look(*_: object) -> None:
        work = work_path(out)
        for path in (work, *work.rglob("*")):
            seen.add((path.name, path.stat().st_mode & 0o777))
        assert not out.exists()

    trainings.run(out, "head", on_step=look)
    modes = dict(seen)
    assert len(modes) == len(seen), "no mode has changed"
    assert (modes[".run.partial"], modes[CHECKPOINT]) == (0o700, 0o600)
    assert out.stat().st_mode & 0o777 == 0o755
    published = files(out)
    assert {mode for mode, _ in published.values()} == {0o644}
    assert sorted(published) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "model_card.json",
        "model_card.md",
        "privacy_ledger.jsonl",
        "tokenizer.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_crashes_left_of_files_is_not_published(trainings: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt(trainings, out)
    for folder in (work_path(out), training_folder(out, {}).run):
        (folder / f".{CHECKPOINT}.k2j5").write_bytes(b"half of a key")
    trainings.run(out, "head", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(files(out)) == 7
    assert not any(b"half of a key" in content for _, content in files(out).values())


def test_another_process_at_the_same_run_folder(
    trainings: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    holder = trainings.start(out, reports=True)
    with holder.steps() as steps:
        assert next(steps) == 1
        holder.send(signal.SIGSTOP)
        for resume in (False, True):
            with pytest.raises(InputError, match="another process is at work on the training"):
                trainings.run(out, resume=resume)
        holder.send(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    trainings.run(out, resume=True)  # the lock died with its holder
    assert files(out)["model.safetensors"] == files(uninterrupted())["model.safetensors"]


DIFFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 31}, "training batch_size is 30, this command's is 31"),
    "steps": ({"steps": 39}, "training steps is 40, this command's is 39"),
    "trainable": ({"trainable": "bias"}, "training trainable is 'head', this command's is 'bias'"),
    "seed": ({"seed": 1}, "training seed is 0, this command's is 1"),
    "rate": ({"learning_rate": 2e-3}, "training learning_rate is 0.001, this command's is 0.002"),
    "no privacy": ({"privacy": None}, "privacy epsilon is 3.0, this command's is None"),
    "noise": (
        {"privacy": {"epsilon": 3.0, "noise_multiplier": 1.6, "noise_seed": 0}},
        "privacy noise_multiplier is 1.5, this command's is 1.6",
    ),
    "noise seed": (
        {"privacy": {"epsilon": 3.0, "noise_multiplier": 1.5, "noise_seed": None}},
        "privacy noise_seed is 0, this command's is None",
    ),
    "clipping": (
        {
            "privacy": {
                "epsilon": 3.0,
                "noise_multiplier": 1.5,
                "noise_seed": 0,
                "max_grad_norm": 0.2,
            }
        },
        "privacy max_grad_norm is 0.1, this command's is 0.2",
    ),
}


@pytest.fixture(scope="module")
def unfinished(trainings: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unfinished")
    interrupt(trainings, folder / "run")
    return folder


@pytest.fixture
def copy(unfinished: Path, tmp_path: Path) -> Path:
    """Where an unfinished training's run folder would be."""
    return Path(shutil.copytree(unfinished, tmp_path / "copy")) / "run"


@pytest.mark.parametrize("case", DIFFERENCES)
def test_another_command_is_refused_with_what_differs(
    trainings: Any, copy: Path, case: str
) -> None:
    changes, message = DIFFERENCES[case]
    before = files(copy.parent)
    with pytest.raises(InputError, match=f"cannot resume .*partial: its {message}"):
        trainings.run(copy, **{"trainable": "head", **changes}, resume=True)
    assert files(copy.parent) == before


def test_other_data_and_another_model_are_refused(
    trainings: Any, tickets: Dataset, copy: Path, tmp_path: Path
) -> None:
    texts = (tickets.texts[0] + "!", *tickets.texts[1:])
    other = Texts(tickets.name, texts, tickets.labels, tickets.label_names)
    with pytest.raises(InputError, match="cannot resume .*: its data is '[0-9a-f]{64}'"):
        trainings.run(copy, "head", data=other, resume=True)
    encoder = Path(shutil.copytree(trainings.encoder, tmp_path / "encoder"))
    with pytest.raises(InputError, match="its model encoder is .*, this command's is 'encoder'"):
        trainings.run(copy, "head", encoder=encoder, resume=True)
    same_name = Path(shutil.copytree(trainings.encoder, tmp_path / trainings.encoder.name))
    weights = bytearray((same_name / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (same_name / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="its initial weights is '[0-9a-f]{64}'"):
        trainings.run(copy, "head", encoder=same_name, resume=True)


def with_state(value: Any) -> bytes:
    return save({"weight.0": torch.ones(1)}, {"state": json.dumps(value)})


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\x93" * 999,
    "a huge header": b"\xff" * 8 + b"{}",
    "no metadata": save({"weight.0": torch.ones(1)}),
    "no JSON": save({"weight.0": torch.ones(1)}, {"state": "{"}),
    "a list": with_state([1]),
    "no key": with_state({"steps_taken": 1}),
    "a key that is no hexadecimal": with_state({"steps_taken": 1, "key": "xy"}),
    "steps in words": with_state({"steps_taken": "many", "key": "00"}),
}


@pytest.mark.parametrize("case", [*BROKEN, "cut short"])
def test_a_broken_state_is_refused(trainings: Any, copy: Path, case: str) -> None:
    path = work_path(copy) / CHECKPOINT
    path.write_bytes(BROKEN[case] if case in BROKEN else path.read_bytes()[:-1])
    before = files(copy.parent)
    with pytest.raises(InputError, match="cannot read the saved state .*checkpoint.safetensors: "):
        trainings.run(copy, "head", resume=True)
    assert files(copy.parent) == before


def test_the_ledger_is_ahead_of_every_step_and_of_every_saved_state(
    trainings: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ledgers: list[int] = []

    def look(step: int, steps: int, epsilon: float | None) -> None:
        ledgers.append(trainings.spent(out))
        first = (step - 1) // 2 * 2  # stretches have two steps
        assert trainings.saved(out) == first
        assert ledgers[-1] == first + 2
        line = json.loads(training_folder(out, {}).ledger.read_text().splitlines()[-1])
        assert line["epsilon"] == epsilon

    trainings.run(out, "head", on_step=look)
    assert len(ledgers) == 40
    assert ledgers == sorted(ledgers)
