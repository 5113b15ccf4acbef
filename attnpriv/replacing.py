"""How a file is replaced: it holds its old content or its new one, never half of either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int) -> Path:
    """Write to a temporary name beside the file, sync, and rename; the path again.

    Args:
        path: the file, there or not.
        content: all that it shall hold.
        mode: its permissions, such as 0o600.

    Raises:
        OSError: the folder cannot be written; the file is as it was.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, as a file's own sync does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
