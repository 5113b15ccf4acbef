"""Real run folders on disk: what is served, what is refused, and what happens when they change."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import pickle
import resource
import shutil
import struct
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from attnpriv.errors import InputError, RunFolderError
from attnpriv.models.text import pad_batch
from attnpriv.runs.folder import CARD, CONFIG, MANIFEST, TOKENIZER, WEIGHTS, load_run
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv_server.repository import Loaded, Repository, UnknownModelError
from attnpriv_server.telemetry import Telemetry

TEXTS = ["the parcel never came", "refund"]
NEVER = 3600.0  # seconds: the tests themselves say when to look

Make = Callable[..., Repository]
Lock = Callable[..., None]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def repository(models: Path, telemetry: Telemetry) -> Iterator[Make]:
    """Makes and starts a repository of the folder ``models``."""
    made: list[Repository] = []

    def make(budget: int | None = None, refresh_seconds: float = NEVER) -> Repository:
        made.append(Repository(models, "float32", budget, telemetry, refresh_seconds))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def put(private_run: Path, models: Path) -> Callable[..., Path]:
    """Puts a run folder at a path below ``models``; another ``shift`` is another model."""

    def put(path: str, shift: float = 0.0) -> Path:
        folder = Path(shutil.copytree(private_run, models / path))
        change_weights(folder, lambda tensors: tensors["head.bias"][0].add_(shift))
        return folder

    return put


def change_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = safetensors.torch.load((run / WEIGHTS).read_bytes())
    change(tensors)
    (run / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    reseal(run)


def change_json(run: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((run / name).read_text())
    change(content)
    (run / name).write_text(json.dumps(content))
    reseal(run)


def reseal(run: Path) -> None:
    """Make the manifest say what the files are, as somebody would who may write all of them."""
    manifest = json.loads((run / MANIFEST).read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    (run / MANIFEST).write_text(json.dumps(manifest))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def replace(old: Path, new: Path) -> None:
    """What an operator does: move the old folder out of sight, then the new one in its place."""
    old.rename(old.parent / f".old-{time.monotonic_ns()}")
    new.rename(old)


def answer(loaded: Loaded) -> bytes:
    ids, mask = pad_batch(encode_texts(loaded.run, TEXTS), loaded.run.tokenizer.pad_id)
    return loaded.backend.probabilities(ids, mask).tobytes()


def reference(run: Path) -> bytes:
    """What the library itself answers from a folder."""
    return predict_probabilities(load_run(run), TEXTS).tobytes()


def memory_of(run: Path) -> int:
    return sum(t.nbytes for t in safetensors.torch.load((run / WEIGHTS).read_bytes()).values())


def is_loaded(repository: Repository, name: str, version: str | None = None) -> bool:
    return repository.loaded(repository.find(name, version)) is not None


def names(repository: Repository) -> dict[str, list[str]]:
    return {name: [v.version for v in found] for name, found in repository.models().items()}


def metric(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(f"attnpriv_server_{name}", labels)


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [record.fields for record in caplog.records if record.msg == "load"]


# Layout


def test_folders_are_models_and_numbers_below_them_versions(models, put, repository) -> None:
    put("spam")
    for version in ("2", "10", "1"):
        put(f"mail/{version}", shift=int(version))
    put(".spam.partial/run")
    put("lost+found")
    put("mail/.3")
    (models / "notes" / "deep").mkdir(parents=True)
    (models / "mail" / "README").write_text("not a version")
    (models / "README.md").write_text("not a model")

    served = repository()

    assert names(served) == {"mail": ["1", "2", "10"], "spam": ["1"]}
    assert served.find("mail").version == "10"
    assert served.find("mail", "2").path == models / "mail" / "2"
    loaded = served.loaded(served.find("mail"))
    assert loaded.name == loaded.run.name == "mail"
    assert loaded.version.card["name"] == loaded.run.card["name"] == "mail"
    assert loaded.version.label_names == loaded.run.label_names
    for name, version in [("nobody", None), ("mail", "3"), ("mail", ""), ("mail", "02")]:
        with pytest.raises(UnknownModelError, match="expected a model and a version") as caught:
            served.find(name, version)
        assert isinstance(caught.value, InputError)


def test_a_link_to_a_hidden_folder_of_the_repository_is_followed(models, put, repository) -> None:
    put(".store/blue")
    (models / "mail").symlink_to(Path(".store") / "blue")

    assert answer(repository().load(repository().find("mail")))


@pytest.mark.parametrize("way", ["models", "link", "link/.", "/proc/self/cwd/models"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_is_taken_as_it_is_given(tmp_path, put, monkeypatch, form, way) -> None:
    name = unicodedata.normalize(form, "café")
    put(f"{name}/1")
    put(".store/2", shift=1.0)
    (tmp_path / "models" / name / "2").symlink_to(Path("..") / ".store" / "2")
    (tmp_path / "link").symlink_to("models")
    monkeypatch.chdir(tmp_path)

    with Repository(Path(way), "float32", refresh_seconds=NEVER) as served:
        assert names(served) == {name: ["1", "2"]}
        assert answer(served.load(served.find(name)))


FOREIGN = """
mount -t tmpfs none "$0" && cp -r "$1" "$0/mail" && mkdir "$0/.store" && cp -r "$1" "$0/.store/spam"
ln -s .store/spam "$0/spam" && echo mounted && read _
"""


def test_models_are_served_out_of_another_process_s_root(models, private_run) -> None:
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", FOREIGN, models, private_run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout.readline() != "mounted\n":
            pytest.skip("only root may give a process a root of its own")
        folder = Path(f"/proc/{process.pid}/root{models}")
        with Repository(folder, "float32", refresh_seconds=NEVER) as served:
            assert names(served) == {"mail": ["1"], "spam": ["1"]}
            assert served.find("mail").path == folder / "mail"
        (folder / ".store").chmod(0o777)
        with pytest.raises(RunFolderError, match=f"everybody may write to {folder}/spam/.."):
            Repository(folder, "float32").start()
        process.communicate("\n")


def test_a_model_is_found_by_any_spelling_of_its_name(put, repository) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(f"{decomposed}/1")
    served = repository()
    assert served.find(composed) is served.find(decomposed, "1")
    with pytest.raises(UnknownModelError):
        served.find("cafe")

    put(composed, shift=1.0)
    served.refresh()
    assert [served.find(name).name for name in (composed, decomposed)] == [composed, decomposed]


# What stops the start


def test_there_must_be_run_folders(models, tmp_path, repository) -> None:
    with pytest.raises(RunFolderError, match=f"expected run folders in {models}, found none"):
        repository()
    (models / "empty").mkdir()
    with pytest.raises(RunFolderError, match="found none"):
        repository()
    with pytest.raises(RunFolderError, match="expected a folder of run folders, got .*nowhere"):
        Repository(tmp_path / "nowhere", "float32").start()


def spoil_card(**values: Any) -> Callable[[Path], None]:
    return lambda run: change_json(run, CARD, lambda card: card.update(values))


def spoil_model(**values: Any) -> Callable[[Path], None]:
    return lambda run: change_json(run, CONFIG, lambda config: config["model"].update(values))


def spoil_weights(value: float, name: str = "head.bias") -> Callable[[Path], None]:
    return lambda run: change_weights(run, lambda tensors: tensors[name].fill_(value))


def share_a_block(run: Path) -> None:
    """Claim, at no cost in bytes, that one block is applied a million times."""

    def keep_one(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("blocks.")]:
            if not name.startswith("blocks.0."):
                del tensors[name]
        labels, dim = len(tensors["head.bias"]), len(tensors["embedding_norm.bias"])
        tensors["head.weight"] = torch.zeros(labels, 3 * dim)

    change_weights(run, keep_one)
    spoil_model(share_layers=True, layers=10**6)(run)


def leave_no_room(run: Path) -> None:
    change_weights(
        run,
        lambda tensors: tensors.update(
            {"positions.weight": tensors["positions.weight"][:1].clone()}
        ),
    )
    spoil_model(max_length=1)(run)


def link_out(run: Path) -> None:
    outside = run.parent.parent / "outside"
    run.rename(outside)
    run.symlink_to(outside)


def link_file(run: Path) -> None:
    (run / CONFIG).rename(run.parent / ".config.json")
    (run / CONFIG).symlink_to(run.parent / ".config.json")


def pipe(run: Path) -> None:
    (run / WEIGHTS).unlink()
    os.mkfifo(run / WEIGHTS)


def undecodable(run: Path) -> None:
    os.rename(run, os.fsencode(run.parent) + b"/\xff")  # noqa: PTH104


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: flip(run / WEIGHTS), "does not match the manifest"),
        (lambda run: (run / WEIGHTS).unlink(), "not a complete run folder"),
        (lambda run: (run / MANIFEST).write_text("{"), "not a complete run folder"),
        (lambda run: (run / "model.pkl").write_bytes(pickle.dumps(0)), "model.pkl is not in the"),
        (lambda run: (run / TOKENIZER).write_text("{}"), "tokenizer.json is not in the manifest"),
        (lambda run: shutil.copytree(run, run / "2"), "2 is not in the manifest"),
        (lambda run: os.mkfifo(run / "pipe"), "pipe is not in the manifest"),
        (pipe, "model.safetensors is a link or no file"),
        (lambda run: os.truncate(run / WEIGHTS, 2**40), "expected at most .* bytes"),
        (link_file, "config.json is a link or no file"),
        (link_out, "leads out of"),
        (lambda run: run.chmod(0o777), "everybody may write to .*: chmod o-w"),
        (lambda run: (run / CARD).chmod(0o646), "everybody may write to .*model_card.json"),
        (lambda run: run.parent.chmod(0o777), "everybody may write to .*models:"),
        (lambda run: run.rename(run.parent / "two\nlines"), r"printable model name, got 'two\\n"),
        (undecodable, r"printable model name, got '\\udcff'"),
        (spoil_weights(math.nan), "expected finite weights, got others in head.bias"),
        (spoil_weights(-math.inf, "words.weight"), "expected finite weights"),
        (spoil_weights(3e38, "blocks.0.output_norm.weight"), "it cannot answer .ArithmeticError"),
        (spoil_model(norm_eps="tiny"), "it cannot answer .TypeError"),
        (spoil_model(vocab_size=2**50), "expected at least .* bytes in model.safetensors"),
        (spoil_model(attention={"temperature": 9.0}), "temperature of the card as in the config"),
        (share_a_block, "expected at most 1024 layers, got 1000000"),
        (leave_no_room, "expected max_length from 2 to 8192, got 1"),
        (spoil_card(label_names=["a", "b"]), "label_names of the card as in the configuration"),
        (spoil_card(encoder="minilm"), "encoder of the card as in the configuration"),
        (spoil_card(private="no"), "expected private in the card"),
        (spoil_card(private=True, epsilon=None), "expected epsilon >= 0 in the card, got None"),
        (spoil_card(delta=10**400), "expected delta >= 0 in the card"),
        (spoil_card(epsilon=math.nan), "expected JSON, got NaN"),
        (spoil_card(warnings=[1]), "warnings of strings"),
        (spoil_card(statement="\ud800"), "surrogates not allowed"),
    ],
)
def test_a_folder_that_cannot_be_trusted_stops_the_start(
    models, put, repository, spoil, message
) -> None:
    spoil(put("mail"))

    with pytest.raises(RunFolderError, match=message) as caught:
        repository()

    assert str(models) in str(caught.value) or "printable" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["v2", "0", "01", "-1", "1.5", "١", "9" * 40])
def test_a_version_that_is_no_number_stops_the_start(put, repository, version) -> None:
    put("mail/1")
    put(f"mail/{version}")

    with pytest.raises(RunFolderError, match=f"version 1, 2, ... of .*mail, got '{version}'"):
        repository()


# Loading and memory


def test_the_newest_versions_are_in_memory_from_the_start_on(
    models, put, repository, telemetry
) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    put("spam")
    unstarted = Repository(models, "float32")
    assert not unstarted.ready()

    served = repository()

    assert served.ready()
    assert is_loaded(served, "mail", "2")
    assert is_loaded(served, "spam")
    assert not is_loaded(served, "mail", "1")
    assert metric(telemetry, "models_loaded") == 2
    older = served.load(served.find("mail", "1"))
    assert older is served.loaded(served.find("mail", "1"))
    assert answer(older) != answer(served.loaded(served.find("mail")))
    served.close()
    assert not served.ready()


def test_many_threads_that_need_a_model_load_it_once(put, repository, telemetry) -> None:
    put("mail/1")
    put("mail/2")
    served = repository()
    together = threading.Barrier(8)

    def load(_: int) -> Loaded:
        together.wait()
        return served.load(served.find("mail", "1"))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1
    assert metric(telemetry, "model_load_seconds_count", model="mail") == 2  # one a version


def test_memory_is_that_of_the_weights(put, repository) -> None:
    run = put("mail")
    served = repository()
    assert served.load(served.find("mail")).memory_bytes == memory_of(run)


def test_the_least_recently_used_model_makes_room(put, repository, telemetry) -> None:
    size = memory_of(put("a"))
    for shift, name in enumerate("bc", start=1):
        put(name, shift=shift)
    served = repository(budget=2 * size + 1)
    a, b, c = (served.find(name) for name in "abc")
    assert served.ready()
    assert [served.loaded(v) is not None for v in (c, b, a)] == [False, True, True]

    held = served.loaded(b)
    expected = answer(held)
    assert served.loaded(a) is not None  # now b is the least recently used
    served.load(c)

    assert [served.loaded(v) is not None for v in (b, a, c)] == [False, True, True]
    assert answer(held) == expected
    assert metric(telemetry, "models_loaded") == 2
    assert metric(telemetry, "model_memory_bytes", model="c", version="1") == size
    assert metric(telemetry, "model_memory_bytes", model="b", version="1") is None
    again = served.load(b)
    assert again is not held
    assert answer(again) == expected


def test_a_model_beyond_the_budget_stops_the_start(put, repository) -> None:
    size = memory_of(put("mail"))
    message = f"refusing .*mail: it takes {size} bytes of memory, the budget is {size - 1}"
    with pytest.raises(RunFolderError, match=message):
        repository(budget=size - 1)


def test_want_of_file_descriptors_passes(put, repository, caplog) -> None:
    put("mail/1")
    put("mail/2")
    served = repository()
    older = served.find("mail", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            with pytest.raises(RunFolderError, match="Too many open files"):
                served.load(older)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(failures(caplog)) == 1
    assert answer(served.load(older))


# What changes on disk


def test_a_replaced_folder_takes_over_at_once(models, put, repository) -> None:
    run = put("mail")
    served = repository()
    old = served.find("mail")
    held = served.loaded(old)
    expected = answer(held)

    replace(run, put(".new", shift=1.0))
    assert served.find("mail") is old
    served.refresh()

    new = served.find("mail")
    assert new is not old
    assert served.loaded(new).version is new
    assert served.loaded(old) is served.load(old) is served.loaded(new)  # of a request in between
    assert answer(held) == expected != answer(served.loaded(new))


def test_a_folder_that_only_looks_changed_is_left_alone(put, repository, telemetry) -> None:
    run = put("mail")
    served = repository()
    version, loaded = served.find("mail"), served.loaded(served.find("mail"))

    os.utime(run / WEIGHTS)
    shutil.copytree(run, run.parent / ".copy")
    replace(run, run.parent / ".copy")
    served.refresh()

    assert served.find("mail") is version
    assert served.loaded(version) is loaded
    assert metric(telemetry, "model_load_seconds_count", model="mail") == 1


def test_a_broken_folder_leaves_the_last_good_one_in_its_place(
    put, repository, telemetry, caplog
) -> None:
    run = put("mail")
    served = repository()
    version = served.find("mail")
    expected = answer(served.loaded(version))

    broken = put(".new", shift=1.0)
    flip(broken / WEIGHTS)
    replace(run, broken)
    for _ in range(3):
        served.refresh()

    assert served.find("mail") is version
    assert answer(served.loaded(version)) == expected
    (failure,) = failures(caplog)
    told = {"model": "mail", "version": "1", "folder": str(run), "error": "RunFolderError"}
    assert failure == told
    assert metric(telemetry, "model_load_failures_total", model="mail") == 1

    flip(run / WEIGHTS)  # whole again
    served.refresh()
    assert served.find("mail") is not version
    assert answer(served.loaded(served.find("mail"))) != expected

    change_weights(run, lambda tensors: tensors["head.bias"].fill_(math.nan))
    served.refresh()
    assert len(failures(caplog)) == 2
    assert is_loaded(served, "mail")


def test_tampering_with_the_files_of_a_loaded_model_is_told_once(put, repository, caplog) -> None:
    run = put("mail")
    served = repository()
    flip(run / WEIGHTS)
    (run / "extra.pkl").write_bytes(b"")
    for _ in range(2):
        served.refresh()
    assert len(failures(caplog)) == 1
    assert is_loaded(served, "mail")


def test_a_new_folder_that_is_refused_hides_nothing(models, put, repository, caplog) -> None:
    put("mail/1")
    served = repository()

    put("mail/2", shift=2.0)
    flip(put("mail/3", shift=3.0) / WEIGHTS)
    put("mail/v4")
    put("two\nlines")
    put("spam")
    for _ in range(2):
        served.refresh()

    assert names(served) == {"mail": ["1", "2"], "spam": ["1"]}
    assert is_loaded(served, "mail", "2")
    told = {(each["model"], each["version"]) for each in failures(caplog)}
    assert told == {("mail", "3"), ("mail", "v4"), ("'two\\nlines'", "1")}
    assert len(failures(caplog)) == 3


def test_a_removed_version_makes_way_for_the_one_before(models, put, repository) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    served = repository()
    newest = served.find("mail")
    held, expected = served.loaded(newest), answer(served.loaded(newest))

    shutil.rmtree(models / "mail" / "2")
    served.refresh()
    assert served.find("mail") is newest  # it may come back at the next look
    served.refresh()

    assert names(served) == {"mail": ["1"]}
    assert is_loaded(served, "mail", "1")
    assert answer(held) == expected
    assert served.loaded(newest) is None
    with pytest.raises(UnknownModelError):
        served.load(newest)

    shutil.rmtree(models / "mail")
    for _ in range(2):
        served.refresh()
    assert served.models() == {}


def test_a_folder_that_is_away_for_one_look_is_not_missed(put, repository, caplog) -> None:
    run = put("mail")
    served = repository()
    for _ in range(3):
        run.rename(run.parent / ".away")
        served.refresh()
        assert is_loaded(served, "mail")
        (run.parent / ".away").rename(run)
        served.refresh()
    assert failures(caplog) == []


def test_a_disk_that_is_gone_takes_no_model_with_it(
    models, put, repository, telemetry, caplog
) -> None:
    put("mail")
    served = repository()
    expected = answer(served.loaded(served.find("mail")))

    models.rename(models.parent / "gone")
    for _ in range(3):
        served.refresh()
    models.mkdir()  # the empty folder on which the disk was mounted
    for _ in range(3):
        served.refresh()
    assert answer(served.loaded(served.find("mail"))) == expected
    assert [record.msg for record in caplog.records] == ["refresh"]
    assert caplog.records[0].fields == {"folder": str(models), "error": "FileNotFoundError"}
    assert metric(telemetry, "models_look_failures_total") == 6

    models.rmdir()
    (models.parent / "gone").rename(models)
    put("spam")
    served.refresh()
    assert list(served.models()) == ["mail", "spam"]


@contextmanager
def permission_bits_hold() -> Iterator[None]:
    """Have this thread refused what root otherwise may."""
    if os.geteuid() != 0:
        yield
        return
    library, header, found = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0), bytearray(24)
    buffer = (ctypes.c_char * 24).from_buffer(found)
    assert library.capget(header, buffer) == 0
    before = bytes(found)
    found[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert library.capset(header, buffer) == 0
    try:
        yield
    finally:
        assert library.capset(header, before) == 0


@pytest.fixture
def lock() -> Iterator[Lock]:
    """Takes permissions away, from root too, until the end of the test."""
    locked: list[Path] = []

    def lock(path: Path, mode: int = 0) -> None:
        path.chmod(mode)
        locked.append(path)

    with permission_bits_hold():
        yield lock
    for path in reversed(locked):
        path.chmod(0o755)


def lead_nowhere(folder: Path, lock: Lock) -> None:
    """A folder that nobody can look into: a link whose target has too long a name."""
    folder.symlink_to("x" * 300)


def close(folder: Path, lock: Lock) -> None:
    (folder / "something").mkdir(parents=True)
    lock(folder, 0)


def close_by_name(folder: Path, lock: Lock) -> None:
    """It can be listed, but nobody can look at what is in it."""
    (folder / "something").mkdir(parents=True)
    lock(folder, 0o444)


@pytest.mark.parametrize("path", ["foreign", "mail/foreign", "mail/3"])
@pytest.mark.parametrize("hide", [close, close_by_name, lead_nowhere])
def test_an_unreadable_folder_is_refused_and_the_rest_goes_on(
    models, put, repository, telemetry, caplog, lock, path, hide
) -> None:
    put("mail/1", shift=1.0)
    put("spam")
    hide(models / path, lock)

    served = repository()
    put("mail/2", shift=2.0)
    put("late")
    shutil.rmtree(models / "spam")
    for _ in range(3):
        served.refresh()

    assert names(served) == {"late": ["1"], "mail": ["1", "2"]}
    assert served.ready()
    assert [failure["folder"] for failure in failures(caplog)] == [str(models / path)]
    model = path.partition("/")[0]
    assert metric(telemetry, "model_load_failures_total", model=model) == 1


@pytest.mark.parametrize("path", ["mail", "mail/2", "mail/2/manifest.json", f"mail/2/{WEIGHTS}"])
def test_what_is_served_stays_while_its_folder_cannot_be_read(
    models, put, repository, caplog, lock, path
) -> None:
    put("mail/1", shift=1.0)
    put("mail/2", shift=2.0)
    served = repository()
    expected = answer(served.loaded(served.find("mail")))

    lock(models / path)
    os.utime(models / path)
    put("spam")
    for _ in range(3):
        served.refresh()

    assert names(served) == {"mail": ["1", "2"], "spam": ["1"]}
    assert answer(served.loaded(served.find("mail"))) == expected
    (failure,) = failures(caplog)
    assert failure["error"] == "PermissionError"
    assert (models / path).is_relative_to(failure["folder"])

    (models / path).chmod(0o755)
    shutil.rmtree(models / "mail" / "1")
    for _ in range(2):
        served.refresh()
    assert names(served) == {"mail": ["2"], "spam": ["1"]}


def test_a_models_folder_that_cannot_be_read_any_more_takes_no_model_with_it(
    models, put, repository, telemetry, caplog, lock
) -> None:
    put("mail")
    served = repository()

    lock(models)
    for _ in range(3):
        served.refresh()

    assert is_loaded(served, "mail")
    assert served.ready()
    assert [record.fields for record in caplog.records] == [
        {"folder": str(models), "error": "PermissionError"}
    ]
    assert metric(telemetry, "models_look_failures_total") == 3


def test_the_start_names_what_cannot_be_read_where_nothing_else_is_there(
    models, repository, lock
) -> None:
    close(models / "mail", lock)
    message = f"expected run folders in {models}, found none; cannot read {models / 'mail'}: Perm"
    with pytest.raises(RunFolderError, match=message):
        repository()
    for closed in (models, models.parent):
        lock(closed)
        with pytest.raises(RunFolderError, match=f"cannot read {models}: Permission denied"):
            repository()


def test_a_folder_that_goes_away_during_the_start_takes_no_other_with_it(
    models, put, telemetry
) -> None:
    put("a")
    put("b", shift=1.0)
    put("c", shift=2.0)

    class Moving(Telemetry):
        """Has the next folder moved away once the first one is loaded."""

        def model_loaded(self, model: str, *rest: Any) -> None:
            super().model_loaded(model, *rest)
            if model == "a":
                (models / "b").rename(models / ".b")

    with Repository(models, "float32", None, Moving(), NEVER) as served:
        assert list(served.models()) == ["a", "c"]
        (models / ".b").rename(models / "b")
        served.refresh()
        assert list(served.models()) == ["a", "b", "c"]


def test_want_of_memory_for_one_folder_keeps_no_other_out(put, repository, caplog) -> None:
    put("mail")
    served = repository()
    os.truncate(put("huge") / WEIGHTS, 4 * 2**30)
    put("spam")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))
    try:
        for _ in range(2):
            served.refresh()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    assert list(served.models()) == ["mail", "spam"]
    assert [failure["error"] for failure in failures(caplog)] == ["MemoryError"]


def test_an_evicted_model_is_refused_while_its_folder_is_tampered_with(
    put, repository, telemetry, caplog
) -> None:
    size = memory_of(put("a"))
    run = put("b", shift=1.0)
    served = repository(budget=size)
    b = served.find("b")
    assert served.loaded(b) is None

    flip(run / WEIGHTS)
    for _ in range(3):
        with pytest.raises(RunFolderError, match="does not match the manifest"):
            served.load(b)
    served.refresh()
    assert len(failures(caplog)) == 1
    assert metric(telemetry, "model_load_failures_total", model="b") == 1

    flip(run / WEIGHTS)
    assert served.load(b).version is b
    replace(run, put(".new", shift=2.0))
    served.load(served.find("a"))  # b is evicted again
    loaded = served.load(b)  # before anybody has looked
    assert loaded.version is served.find("b") is not b


def test_a_folder_that_is_being_replaced_is_waited_for(put, repository) -> None:
    size = memory_of(put("a"))
    run = put("b")
    served = repository(budget=size)
    run.rename(run.parent / ".away")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(served.load, served.find("b"))
        (run.parent / ".away").rename(run)
        assert loading.result().name == "b"


@pytest.mark.parametrize("budget_in_models", [None, 1.5])
def test_no_request_is_lost_while_a_model_is_replaced_twenty_times(
    models, put, repository, budget_in_models
) -> None:
    blue, green = put(".blue"), put(".green", shift=1.0)
    link = models / "mail"
    link.symlink_to(blue.name)
    put("spam", shift=2.0)
    budget = budget_in_models and int(budget_in_models * memory_of(blue))
    served = repository(budget, refresh_seconds=0.01)
    hashes = {
        folder: json.loads((folder / MANIFEST).read_text())["sha256"] for folder in (blue, green)
    }
    expected = {str(hashes[folder]): reference(folder) for folder in (blue, green)}
    done, computing, answers = threading.Event(), threading.Lock(), [0]

    def ask() -> None:
        while not done.is_set():
            for name in ("mail", "spam"):
                version = served.find(name)
                loaded = served.loaded(version) or served.load(version)
                with computing:  # as a lane does: a backend is called from one thread at a time
                    got = answer(loaded)
                    answers[0] += 1
                if name == "mail":
                    assert got == expected[str(loaded.version.hashes)]

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for turn in range(20):
                target = (green, blue)[turn % 2]
                (models / ".next").symlink_to(target.name)
                (models / ".next").replace(link)
                wait_for(lambda target=target: served.find("mail").hashes == hashes[target])
        finally:
            done.set()
    for each in asking:
        each.result()
    assert answers[0] > 20


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
