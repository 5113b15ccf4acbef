"""How files are written.

What a path stands for decides:

* nothing yet, or a regular file: replaced as a whole, so that it holds its old content or its new
  one, never half of either;
* a symbolic link: followed, so that the link stays; a dangling one gets its target;
* a device, a pipe, or an open file such as ``/dev/stdout``: written to;
* a folder or a disk: refused.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

LINKS = 40  # that Linux follows, too


def replace_file(path: Path, content: bytes, mode: int) -> Path:
    """Write all of a file and sync it, as the path demands; the path again.

    Args:
        path: the file, there or not.
        content: all that it shall hold.
        mode: permissions of a new file, such as 0o600; one that is replaced keeps its own.

    Raises:
        OSError: it cannot be written; a regular file is as it was.
    """
    target = replaceable(path)
    if target is None:
        with open_stream(path) as stream:
            stream.write(content)
        return path
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            keep_permissions(target, descriptor)
            os.fsync(descriptor)
        Path(temporary).replace(target)
        sync_folder(target.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def replaceable(path: Path) -> Path | None:
    """The regular file that a path stands for, once it is there; None where it is written to.

    Raises:
        OSError: it stands for a folder or a disk, or its folder is missing or cannot be written to.
    """
    if _descriptor(path) is not None:
        return None
    with suppress(FileNotFoundError):
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise _error(errno.EISDIR, path)
        if stat.S_ISBLK(kind):
            raise _error(errno.ENOTSUP, path)
        if not stat.S_ISREG(kind):
            return None
    target = path.resolve()
    target.parent.stat()  # it is there
    check_folder(target.parent)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, target.parent)
    return target


def check_folder(path: Path) -> None:
    """A folder that is to be made or written into: nothing else may be at its place.

    Raises:
        NotADirectoryError: there is something else.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise _error(errno.ENOTDIR, path)


def open_stream(path: Path) -> IO[bytes]:
    """Write to what is no regular file; nothing is made, and nothing in it is cut off.

    Raises:
        OSError: it cannot be opened for writing.
    """
    number = _descriptor(path)
    flags = os.O_WRONLY | os.O_NOCTTY
    return os.fdopen(os.open(path, flags) if number is None else os.dup(number), "wb")


def keep_permissions(replaced: Path, descriptor: int) -> None:
    """Give a new file the permissions of the one that it replaces, if there is one.

    So with its owner and its group, as far as the system lets this process give files away.
    """
    with suppress(FileNotFoundError):
        before, new = replaced.stat(), os.fstat(descriptor)
        os.fchmod(descriptor, before.st_mode & 0o777)
        with suppress(PermissionError):
            if before.st_gid != new.st_gid:
                os.fchown(descriptor, -1, before.st_gid)
            if before.st_uid != new.st_uid:
                os.fchown(descriptor, before.st_uid, -1)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, as a file's own sync does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _descriptor(path: Path) -> int | None:
    """Number of the open file of this process that ``/dev/fd/N`` or ``/dev/stdout`` stands for.

    Such a file is not to be replaced, be it a regular one: whoever opened it still writes to it.
    """
    open_files = os.path.realpath("/dev/fd")
    for _ in range(LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == open_files:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
