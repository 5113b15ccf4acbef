"""What a path stands for decides how it is written; nothing but regular files is ever replaced."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from attnpriv.replacing import replace_file, replaceable


def kind(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


@contextmanager
def allowed():
    """Skip what only root may do, and not even root in every container."""
    try:
        yield
    except OSError as error:
        pytest.skip(str(error))


@contextmanager
def reading(fifo: Path):
    """What comes out of a pipe by the end of the block."""
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()), daemon=True)
    reader.start()
    yield received
    reader.join(30)


def test_a_file_is_made_with_the_mode_and_replaced_with_its_own(tmp_path) -> None:
    file = tmp_path / "file"

    assert replace_file(file, b"first", 0o600) == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    replace_file(file, b"second", 0o600)

    assert file.read_bytes() == b"second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_keeps_its_owner_and_its_group(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    with allowed():
        os.chown(file, 1234, 4321)

    replace_file(file, b"second", 0o600)

    assert (file.stat().st_uid, file.stat().st_gid, file.read_bytes()) == (1234, 4321, b"second")


def test_links_are_followed_and_stay(tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file, link, chain = folder / "file", tmp_path / "link", tmp_path / "chain"
    link.symlink_to("folder/file")
    chain.symlink_to(link)

    for path, content in ((chain, b"dangling"), (link, b"there")):
        replace_file(path, content, 0o600)
        assert file.read_bytes() == content

    assert (kind(file), kind(link), kind(chain)) == (stat.S_IFREG, stat.S_IFLNK, stat.S_IFLNK)
    assert replaceable(chain) == file
    assert [each.name for each in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path, through_a_link) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "path"
    os.mkfifo(fifo)
    path.symlink_to(fifo)

    with reading(fifo) as received:
        replace_file(path if through_a_link else fifo, b"whole", 0o600)

    assert received == [b"whole"]
    assert kind(fifo) == stat.S_IFIFO


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_device_is_written_to_and_stays_a_device(tmp_path, through_a_link) -> None:
    device, path = tmp_path / "null", tmp_path / "path"
    path.symlink_to(device)
    with allowed():
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.open("wb").close()

    replace_file(path if through_a_link else device, b"gone", 0o600)

    assert kind(device) == stat.S_IFCHR


def test_a_disk_is_refused(tmp_path) -> None:
    disk = tmp_path / "disk"
    with allowed():
        os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 200))

    with pytest.raises(OSError, match="not supported"):
        replace_file(disk, b"", 0o600)
    assert kind(disk) == stat.S_IFBLK


@pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_an_open_file_is_written_to_where_it_stands(tmp_path, path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.write(b"before, ")
        opened.flush()
        if path == "link":
            (tmp_path / "link").symlink_to(f"/dev/fd/{opened.fileno()}")

        replace_file(tmp_path / path.format(opened.fileno()), b"whole", 0o600)

        opened.write(b", after")
    assert file.read_bytes() == b"before, whole, after"


def test_a_process_substitution_gets_the_whole() -> None:
    read_end, write_end = os.pipe()

    replace_file(Path(f"/dev/fd/{write_end}"), b"whole", 0o600)
    os.close(write_end)

    with os.fdopen(read_end, "rb") as file:
        assert file.read() == b"whole"


def test_what_cannot_be_written_says_so_and_is_as_it_was(tmp_path) -> None:
    folder, loop, file = tmp_path / "folder", tmp_path / "loop", tmp_path / "file"
    folder.mkdir()
    loop.symlink_to(loop)
    file.write_bytes(b"old")

    with pytest.raises(IsADirectoryError):
        replaceable(folder)
    with pytest.raises(NotADirectoryError):
        replaceable(file / "below")
    with pytest.raises(FileNotFoundError):
        replaceable(tmp_path / "none" / "file")
    with pytest.raises(OSError, match="symbolic links"):
        replaceable(loop)
    with pytest.raises(OSError, match="Bad file descriptor"):
        replace_file(Path("/dev/fd/1234567"), b"", 0o600)
    assert file.read_bytes() == b"old"
