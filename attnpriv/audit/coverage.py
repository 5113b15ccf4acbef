"""Who marks the personal data that an audit looks at, and how well a detector finds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnpriv.audit.subject import Progress, Rows, Spans
from attnpriv.data.records import Dataset, Span
from attnpriv.sensitive import Detector, TypeQuality, span_quality

GOLD = "gold spans"
BOXES, NO_BOXES = "gold boxes", "no gold boxes"
"""Of images, in which nothing is detected."""
TOGETHER = 32  # texts that the detector takes at once


@dataclass(frozen=True)
class DetectorCoverage:
    """Who said what is sensitive, and how a detector compares where gold spans can tell."""

    source: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]
    quality: tuple[TypeQuality, ...] | None

    @property
    def marked(self) -> bool:
        """Whether the data set itself says what is sensitive."""
        return self.source == GOLD or self.of_images

    @property
    def of_images(self) -> bool:
        """Whether the records are images."""
        return self.source in (BOXES, NO_BOXES)


def detect(
    data: Dataset, rows: Sequence[Rows], detector: Detector | None, progress: Progress
) -> Spans:
    """What the detector finds: in all rows where it is needed, else in those it is scored on."""
    if detector is None:
        return {}
    wanted = _all(rows) if data.regions is None else sorted(rows[0].held_out)
    found: dict[int, tuple[Span, ...]] = {}
    for start in range(0, len(wanted), TOGETHER):
        some = wanted[start : start + TOGETHER]
        texts = [data.records[row] for row in some]
        found.update(zip(some, detector.detect_all(texts), strict=True))
        progress(len(found), len(wanted))
    return found


def gold(data: Dataset, rows: Sequence[Rows]) -> Spans:
    """What is marked in all rows under audit, if anything is."""
    return {row: data.regions[row] if data.regions else () for row in _all(rows)}


def _all(rows: Iterable[Rows]) -> list[int]:
    return sorted({row for own in rows for row in (*own.held_out, *(own.members or ()))})


def coverage(
    data: Dataset, rows: Sequence[int], detector: Detector | None, found: Spans
) -> DetectorCoverage:
    """Who marked personal data, and the detector's quality wherever gold spans can tell."""
    if data.regions is None and detector is None:
        return DetectorCoverage(NO_BOXES, (), (), None)
    if data.regions is None:
        assert detector is not None
        return DetectorCoverage(detector.name, detector.entity_types, detector.cannot_see, None)
    spans = [data.regions[row] for row in rows]
    types = tuple(sorted({span.entity_type for own in spans for span in own}))
    if detector is None:
        return DetectorCoverage(GOLD if data.kind == "text" else BOXES, types, (), None)
    quality = span_quality([found[row] for row in rows], spans)
    return DetectorCoverage(GOLD, types, detector.cannot_see, quality)
