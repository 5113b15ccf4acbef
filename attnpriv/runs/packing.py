"""Run folders on their way to other processes and machines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from attnpriv.errors import RunFolderError
from attnpriv.runs.folder import MANIFEST, Run, load_run


@dataclass(frozen=True)
class FolderOfRun:
    """A run that another process loads again.

    Attributes:
        path: where it is.
        hashes: of its files when it was loaded here.
        files: their bytes by name, for a machine that does not see the path; None if it does.
    """

    path: Path
    hashes: dict[str, str]
    files: dict[str, bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, run: Run) -> FolderOfRun:
        """The folder that a run was loaded from."""
        return cls(run.path, run.hashes)

    def packed(self) -> FolderOfRun:
        """The same with the bytes of its files.

        Raises:
            RunFolderError: it cannot be read any more.
        """
        try:
            files = {name: (self.path / name).read_bytes() for name in (*self.hashes, MANIFEST)}
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be read: {error.strerror}") from None
        return replace(self, files=files)

    def unpacked(self, place: Path) -> FolderOfRun:
        """The same folder on this machine, written into a place where it was packed."""
        if self.files is None:
            return self
        path = place / self.path.resolve().name  # the name of a run is its folder's
        path.mkdir()
        for name, content in self.files.items():
            (path / name).write_bytes(content)
        return FolderOfRun(path, self.hashes)

    def load(self) -> Run:
        """The run.

        Raises:
            RunFolderError: the folder is no run folder, or holds another run by now.
        """
        with TemporaryDirectory() as place:
            return self.unpacked(Path(place))._checked()

    def _checked(self) -> Run:
        run = load_run(self.path)
        if run.hashes != self.hashes:
            raise RunFolderError(f"{self.path} was replaced while it was in use")
        return run
