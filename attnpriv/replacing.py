"""Writing files as a whole.

What happens depends on what is at the path:

* nothing, or a regular file: the file is replaced as a whole, so that it always holds either its
  old or its new content, never half of either;
* a symbolic link: it is followed and stays; the target of a dangling link is created;
* a device, a pipe, or an open file such as ``/dev/stdout``: it is written to;
* a folder or a disk: it is refused.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

LINKS = 40  # that Linux follows, too


def replace_file(path: Path, content: bytes | Iterable[bytes], mode: int) -> Path:
    """Write all of a file and sync it; returns the path.

    Args:
        path: the file, there or not.
        content: the whole new content, or its pieces one after another.
        mode: permissions of a new file, such as 0o600; a file that is replaced keeps its own.

    Raises:
        OSError: the file cannot be written; a regular file is then unchanged.
    """
    pieces = [content] if isinstance(content, bytes) else content
    target = replaceable(path)
    if target is None:
        with open_stream(path) as stream:
            stream.writelines(pieces)
        return path
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
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
    """The regular file to replace or create for a path; None if the path is written to instead.

    Raises:
        OSError: the path is a folder or a disk, or its folder is missing or not writable.
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
    target.parent.stat()  # raises if it is missing
    check_folder(target.parent)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, target.parent)
    return target


def check_folder(path: Path) -> None:
    """Check that a folder can be made or written into at this path.

    Raises:
        NotADirectoryError: there is something else at the path.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise _error(errno.ENOTDIR, path)


def open_stream(path: Path) -> IO[bytes]:
    """Open something that is not a regular file for writing; it is neither created nor truncated.

    Raises:
        OSError: it cannot be opened for writing.
    """
    number = _descriptor(path)
    flags = os.O_WRONLY | os.O_NOCTTY
    return os.fdopen(os.open(path, flags) if number is None else os.dup(number), "wb")


def keep_permissions(replaced: Path, descriptor: int) -> None:
    """Give a new file the permissions of the file that it replaces, if there is one.

    Its owner and group are kept too, as far as the system lets this process give files away.
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
    """Make the names in a folder durable; syncing a file does not do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _descriptor(path: Path) -> int | None:
    """Number of this process's open file behind a path such as ``/dev/fd/N`` or ``/dev/stdout``.

    Such a file must not be replaced, even a regular one: whoever opened it still writes to it.
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
