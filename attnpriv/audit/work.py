"""The work folder of an audit that is under way: what is finished is not measured again.

::

    OUT/.audit-work/
        identity.json           which audit this is: runs, data, options, code, machine
        0-attention-000128.npz  a finished piece of the pass over the documents, plain arrays
        0-attribution.json      a finished measure

Nothing is pickled, and no text of any record is in it. Each file is complete or not there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.identity import check_same
from attnpriv.replacing import check_folder, replace_file

NAME, IDENTITY = ".audit-work", "identity.json"


class WorkFolder:
    """The finished pieces of one audit; the folder is made with the first of them.

    Args:
        path: the folder.
        identity: what makes it this audit and no other, as JSON values by name.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True)

    def read(self, name: str) -> bytes | None:
        """A finished piece, if it is there."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"cannot read {self.path / name}: {error.strerror}") from error

    def write(self, name: str, content: bytes) -> None:
        """Keep a finished piece; it is on disk when the call returns."""
        try:
            if not (self.path / IDENTITY).exists():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(self.path / IDENTITY, self._identity.encode(), mode=0o600)
            replace_file(self.path / name, content, mode=0o600)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from error

    def check(self) -> None:
        """Raise InputError where the pieces are of another audit; the message says what differs."""
        ours = json.loads(self._identity)
        try:
            theirs = dict(json.loads((self.path / IDENTITY).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"cannot resume {self.path}: no usable {IDENTITY}") from error
        check_same(self.path, theirs, ours)


def has_begun(out: Path) -> bool:
    """Whether an output folder holds an unfinished audit to go on with."""
    return (out / NAME / IDENTITY).exists()


@contextmanager
def open_work_folder(out: Path, identity: dict[str, Any], *, resume: bool) -> Iterator[WorkFolder]:
    """The work folder in an output folder; it vanishes when the block ends without an exception.

    Raises:
        InputError: there is an unfinished audit and ``resume`` is false, or none and it is true, or
            it is another one; or the output folder is no folder.

    Not covered: two audits that write to one folder at the same time.
    """
    try:
        check_folder(out)
    except NotADirectoryError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from None
    work = WorkFolder(out / NAME, identity)
    begun = work.path.exists()
    if begun and not resume:
        raise InputError(
            f"an unfinished audit is in {work.path}: go on with --resume, or remove that folder"
        )
    if resume:
        if not begun:
            raise InputError(f"expected an unfinished audit in {out}, there is none")
        work.check()
    yield work
    shutil.rmtree(work.path, ignore_errors=True)
