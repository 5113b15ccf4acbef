"""Models side by side: heads on an encoder as it is or bounded, private or not, and their audits.

Runs and reports are kept in a folder, and what is there is not made again. They are as private as
the data.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnpriv.audit.leakage.shadow_folder import ShadowModels
from attnpriv.audit.subject import AuditOptions
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.models.pretrained import MINILM, MINILM_BOUNDED, encoder_bound
from attnpriv.report.auditing import audit_into, finished, provenance_of
from attnpriv.report.document import Report
from attnpriv.runs.folder import Run, load_run
from attnpriv.sensitive import PresidioDetector
from attnpriv.training import has_begun, train
from attnpriv.training.features import FeatureFolder
from benchmarks.hardening_frontier.tasks import Task


@dataclass(frozen=True)
class Variant:
    """One of the models.

    Attributes:
        name: as in the table.
        encoder: ``minilm`` or ``minilm-bounded``.
        clipped: whether ``minilm`` is clipped at the bound of the other.
        epsilon: under which the head is trained; None without privacy.
    """

    name: str
    encoder: str
    clipped: bool = False
    epsilon: float | None = None

    @property
    def attention(self) -> AttentionConfig | None:
        """What the encoder's attention is hardened to; None leaves it."""
        bound = encoder_bound(MINILM_BOUNDED)
        return bound.attention if self.clipped and bound else None


PLAIN = Variant("plain", MINILM)
CLIPPED = Variant("clipped", MINILM, clipped=True)
BOUNDED = Variant("bounded", MINILM_BOUNDED)


@dataclass(frozen=True)
class Bench:
    """Where the models of one data set are.

    Attributes:
        task: the data.
        folder: of its runs, reports and features.
    """

    task: Task
    folder: Path

    @property
    def data(self) -> Dataset:
        """All rows."""
        return self.task.data

    @property
    def features(self) -> FeatureFolder:
        """What the encoders make of the rows; delete it once all is measured."""
        return FeatureFolder(self.folder / "features")

    def run_of(self, variant: Variant, seed: int, canaries: int | None = None) -> Run:
        """A run, trained now or found.

        Args:
            variant: the model.
            seed: of the split and the head.
            canaries: how many made-up records it is trained on besides.
        """
        kind = "runs" if canaries is None else "canaries"
        path = self.folder / kind / f"{variant.name.replace(' ', '-')}-{seed}"
        if not path.exists():
            train(
                self.data,
                path,
                encoder=variant.encoder,
                attention=variant.attention,
                config=TrainConfig(trainable="head", seed=seed, train_size=self.task.train_size),
                privacy=None if variant.epsilon is None else PrivacyConfig(variant.epsilon),
                canaries=canaries,
                features=self.features,
                resume=has_begun(path),
            )
            tell(path)
        return load_run(path)

    def report_of(
        self,
        runs: Sequence[Run],
        name: str,
        sizes: AuditOptions,
        shadows: Sequence[ShadowModels] = (),
    ) -> Report:
        """The audit of runs on the same rows, made now or found complete.

        Args:
            runs: of one seed.
            name: of its folder.
            sizes: how much is measured, with the seed of the samples.
            shadows: of the runs.
        """
        folder = self.folder / name
        if report := finished(folder, provenance_of(runs, self.data, shadows)):
            return report
        detector = PresidioDetector() if self.data.spans is None else None
        report = audit_into(
            folder, runs, self.data, detector, sizes, resume=None, shadows=shadows
        ).report
        tell(folder)
        return report


def tell(what: object) -> None:
    """Say what is done, on stderr."""
    print(what, file=sys.stderr, flush=True)
