"""A folder of run folders as the server reads it: where the versions are, and what it refuses.

::

    MODELS/
        mail/               a run folder: version 1 of the model "mail"
        spam/
            1/  2/          run folders: two versions of the model "spam"
        .anything/          hidden, so not looked at

Whatever else holds a manifest.json, one or two levels down, is refused and not passed over. A
folder without one is no run folder; one that cannot be looked into may be, so it is refused too.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from attnpriv.errors import InputError, RunFolderError
from attnpriv.runs.folder import MANIFEST, Run, load_run

# A block that is shared may be claimed for any number of layers, and time and memory go with the
# square of the tokens: more than any encoder has would stop the server.
MOST_LAYERS, MOST_TOKENS = 1024, 8192


@dataclass(frozen=True)
class Place:
    """Where a version of a model is; nothing of it has been read yet.

    Attributes:
        name: of the model.
        version: as the folder is called; not always a number.
        path: the run folder.
    """

    name: str
    version: str
    path: Path

    @property
    def label(self) -> str:
        """The name as it may stand in a log or a metric, also where it is refused."""
        return printable(self.name)

    @property
    def number(self) -> int:
        """The version as a number; 0 for one that is none."""
        return int(self.version) if re.fullmatch("[1-9][0-9]{0,17}", self.version) else 0


@dataclass(frozen=True)
class Found:
    """What a look at the folder of models found.

    Attributes:
        places: by name, and the newest version of each name first.
        unreadable: folders that the server may not or cannot look into, each with the reason. What
            is in them nobody can say, so nothing of them is gone either.
    """

    places: list[Place]
    unreadable: dict[Place, OSError]

    def hides(self, place: Place) -> bool:
        """Whether there may be something at a place that could not be looked at."""
        return any(place.path.is_relative_to(each.path) for each in self.unreadable)


def printable(text: str) -> str:
    """A name as it may stand in one line of a log."""
    return text if text.isprintable() else ascii(text)


def find_places(root: Path) -> Found:
    """All places in a folder.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = Found([], {})
    for path in _visible(root):
        _search(Place(path.name, "1", path), found)
    found.places.sort(key=lambda place: (place.name, -place.number, place.version))
    return found


def fingerprint(path: Path) -> Hashable:
    """A value that changes whenever anything in a folder does; it opens no file.

    None where there is no folder, and an error's number where it cannot be read.
    """
    try:
        found = [(child.name, child.lstat()) for child in path.iterdir()]
        found.append(("", path.stat()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error.errno
    return frozenset(
        (name, status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
        for name, status in found
    )


def read_place(root: Path, place: Place) -> Run:
    """Read the run at a place, under the model's name, and check everything but its answers.

    Claim: nothing outside of ``root`` is read, and nothing that everybody may write to.

    Raises:
        RunFolderError: the folder cannot be trusted or served; one line, which names it.
    """
    _check_name(place)
    try:
        _check_access(root, place.path)
        run = load_run(place.path)
        _check_listed(run)
    except OSError as error:
        raise RunFolderError(f"cannot read {place.path}: {error.strerror}") from error
    try:
        _check_model(run)
        _check_card(run)
    except (InputError, UnicodeEncodeError) as error:
        raise RunFolderError(f"refusing {place.path}: {error}") from error
    return replace(run, name=place.name, card=run.card.named(place.name))


def _search(place: Place, found: Found, may_hold_versions: bool = True) -> None:
    """Add a place where there is a run folder, and otherwise those below it."""
    try:
        if _is_run(place.path):
            found.places.append(place)
        elif may_hold_versions:
            for path in _visible(place.path):
                _search(Place(place.name, path.name, path), found, may_hold_versions=False)
    except (FileNotFoundError, NotADirectoryError):
        pass  # a plain file, or it has just been moved away
    except OSError as error:
        found.unreadable[place] = error


def _visible(folder: Path) -> list[Path]:
    # The root of a disk has a lost+found, which the server may not even read.
    names = (path for path in folder.iterdir() if path.name != "lost+found")
    return [path for path in names if not path.name.startswith(".")]


def _is_run(folder: Path) -> bool:
    try:
        (folder / MANIFEST).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_name(place: Place) -> None:
    """Names get onto the wire and into logs, so they have to be text of one line."""
    if not place.name.isprintable():
        raise RunFolderError(f"expected a printable model name, got {place.name!r}")
    if place.number == 0:
        raise RunFolderError(
            f"expected versions of {place.path.parent} named 1, 2, ..., got {place.version!r}"
        )


def _check_access(root: Path, path: Path) -> None:
    """Refuse links out of the repository, and files that anybody on the machine could replace.

    Who reaches the root of a mounted volume is decided by who mounts it; many are open to all.
    """
    folders = [(each, each.stat()) for each in _up_to(root, path) if not _is_mount(each)]
    files = [(each, each.lstat()) for each in path.iterdir() if not each.is_symlink()]
    for each, status in (*files, *folders):
        if status.st_mode & stat.S_IWOTH:
            raise RunFolderError(
                f"everybody may write to {each}: run chmod o-w on it to have it served"
            )


def _up_to(root: Path, path: Path) -> list[Path]:
    """A folder and those that it is in, up to the repository, as the system finds them.

    No path is put together from the names that links have: those of ``/proc/PID/root`` lead
    elsewhere for the process that reads them.
    """
    top, folders = root.stat(), [path]
    while not os.path.samestat(folders[-1].stat(), top):
        last = folders[-1]
        folders.append(last.parent if last.parent.samefile(last / "..") else last / "..")
        if folders[-1].samefile(last):
            raise RunFolderError(f"{path} leads out of {root}")
    return folders


def _is_mount(folder: Path) -> bool:
    """Whether something is mounted on a folder; unlike pathlib's, it reads no link."""
    status, above = folder.stat(), (folder / "..").stat()
    return status.st_dev != above.st_dev or os.path.samestat(status, above)


def _check_listed(run: Run) -> None:
    """Refuse files beside those of the manifest, hidden ones apart: none of them is ever read."""
    for path in sorted(run.path.iterdir()):
        if path.name not in (MANIFEST, *run.hashes) and not path.name.startswith("."):
            raise RunFolderError(f"{path} is not in the manifest")


def _check_model(run: Run) -> None:
    config = run.model.config
    if config.layers > MOST_LAYERS:
        raise InputError(f"expected at most {MOST_LAYERS} layers, got {config.layers}")
    if not 2 <= config.max_length <= MOST_TOKENS:
        raise InputError(f"expected max_length from 2 to {MOST_TOKENS}, got {config.max_length}")
    for name, tensor in run.model.state_dict().items():
        if not tensor.isfinite().all():
            raise InputError(
                f"expected finite weights, but some in {name} are infinite or not a number"
            )


def _check_card(run: Run) -> None:
    """Refuse a card that describes another model, or that would not fit into an answer."""
    card, config = run.card, run.model.config
    claimed = {**asdict(card.attention), "encoder": card.encoder, "label_names": card.label_names}
    actual = {"encoder": config.encoder, "label_names": run.label_names}
    for name, value in {**asdict(config.attention), **actual}.items():
        if claimed[name] != value:
            raise InputError(f"{name} in the model card differs from the configuration")
    # Half a surrogate pair fits into no message.
    json.dumps(card.as_written, ensure_ascii=False).encode()
