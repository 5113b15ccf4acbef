"""What an audit's numbers came from: enough to get the same bytes again, and to notice why not."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import attnpriv

if TYPE_CHECKING:
    from attnpriv.audit.leakage.served import ServedAnswers
    from attnpriv.audit.leakage.shadow_folder import ShadowModels
    from attnpriv.data.records import Dataset
    from attnpriv.runs.folder import Run

LIBRARIES = (
    "captum",
    "numpy",
    "presidio-analyzer",
    "scikit-learn",
    "scipy",
    "spacy",
    "tokenizers",
    "torch",
)


@dataclass(frozen=True)
class RunFiles:
    """The SHA-256 of each file of a run folder."""

    run: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Machine:
    """What of a machine decides how floating-point sums round; never its name."""

    system: str
    architecture: str
    vector_instructions: str
    threads: int


@dataclass(frozen=True)
class Provenance:
    """Which models, data, code and machine a report came from; seeds are among the options.

    Attributes:
        attnpriv: its version.
        code_sha256: of its Python files, which may have been edited within a version.
        python: its version.
        libraries: versions of what the numbers go through.
        machine: what of it decides how sums round.
        runs: the files of each audited run.
        data: what the data is called.
        data_rows: how many records it has, audited or not.
        data_sha256: over all texts and labels, in order.
        spans_sha256: over the gold spans of personal data; None where nobody marked them.
        shadows_sha256: over the answers of the shadow models in each folder of them.
        answers_sha256: of each audit of a server's answers.
    """

    attnpriv: str
    code_sha256: str
    python: str
    libraries: dict[str, str]
    machine: Machine
    runs: tuple[RunFiles, ...]
    data: str
    data_rows: int
    data_sha256: str
    spans_sha256: str | None
    shadows_sha256: tuple[str, ...] = ()
    answers_sha256: tuple[str, ...] = ()


def provenance(
    runs: Sequence[Run],
    data: Dataset,
    shadows: Sequence[ShadowModels] = (),
    answers: Sequence[ServedAnswers] = (),
) -> Provenance:
    """Where the numbers of an audit of these runs on this data come from.

    There is no time in it: the same audit gives the same bytes tomorrow. Not covered by any ε:
    whoever knows every record but one can test guesses for the last against the fingerprint.
    """
    import torch  # takes seconds, and reading a report needs none of it

    return Provenance(
        attnpriv=attnpriv.__version__,
        code_sha256=_code_sha256(Path(attnpriv.__file__).parent),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        machine=Machine(
            platform.system(),
            platform.machine(),
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
        ),
        runs=tuple(RunFiles(run.name, dict(sorted(run.hashes.items()))) for run in runs),
        data=data.name,
        data_rows=len(data),
        data_sha256=data.fingerprint(),
        spans_sha256=data.regions_fingerprint(),
        shadows_sha256=tuple(each.sha256 for each in shadows),
        answers_sha256=tuple(each.sha256 for each in answers),
    )


def _code_sha256(package: Path) -> str:
    """Over the names and contents of a package's Python files, wherever it is installed."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).parts):
        name, content = path.relative_to(package).as_posix().encode(), path.read_bytes()
        digest.update(b"%d %d " % (len(name), len(content)) + name + content)
    return digest.hexdigest()
