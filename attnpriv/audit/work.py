"""Where an audit that is under way keeps what is finished, so that it is not measured again.

::

    OUT/.audit-work/            as in ``attnpriv.work_folder``
        0-attention-000128.npz  a finished piece of the pass over the documents, plain arrays
        0-attribution.json      a finished measure

Nothing is pickled, and no text of any record is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.replacing import check_folder
from attnpriv.work_folder import WorkFolder, open_work_folder

NAME = ".audit-work"


def has_begun(out: Path) -> bool:
    """Whether an output folder holds an unfinished audit to go on with."""
    return WorkFolder(out / NAME, {}).has_begun


def kept_identity(out: Path) -> dict[str, Any] | None:
    """What the unfinished audit in an output folder is; None if there is none that can be read."""
    return WorkFolder(out / NAME, {}).kept_identity()


def open_audit_folder(
    out: Path, identity: Mapping[str, Any], *, resume: bool | None
) -> AbstractContextManager[WorkFolder]:
    """The work folder in an output folder, for this process alone.

    Args:
        out: the output folder, there or not.
        identity: runs, data, options, code and machine, as JSON values by name.
        resume: as in ``work_folder.open_work_folder``.

    Raises:
        InputError: the output folder is no folder; or, once the block begins, as
            ``work_folder.open_work_folder``.
    """
    try:
        check_folder(out)
    except NotADirectoryError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from None
    return open_work_folder(out / NAME, identity, job=f"audit in {out}", resume=resume)
