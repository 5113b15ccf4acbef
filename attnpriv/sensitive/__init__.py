"""Which parts of a record are personal data, and what is shown in their place.

There are two sources: gold spans or boxes that come with a data set (``Dataset.regions``) or with a
request, and a ``Detector`` that reads texts. Nothing looks for personal data in images. Presidio
and spaCy are imported only when a detector is made, since that takes seconds.
"""

from attnpriv.sensitive.detector import Detector, PresidioDetector, placeholder
from attnpriv.sensitive.digits import LONG_NUMBER
from attnpriv.sensitive.masking import MaskedReading, read_masked
from attnpriv.sensitive.overlaps import resolve_overlaps
from attnpriv.sensitive.quality import TypeQuality, detector_quality, span_quality
from attnpriv.sensitive.redaction import (
    Part,
    Reading,
    Redacted,
    hidden_parts,
    read_redacted,
    redact,
)
from attnpriv.sensitive.rules import Rules, load_rules

__all__ = [
    "LONG_NUMBER",
    "Detector",
    "MaskedReading",
    "Part",
    "PresidioDetector",
    "Reading",
    "Redacted",
    "Rules",
    "TypeQuality",
    "detector_quality",
    "hidden_parts",
    "load_rules",
    "placeholder",
    "read_masked",
    "read_redacted",
    "redact",
    "resolve_overlaps",
    "span_quality",
]
