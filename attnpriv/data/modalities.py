"""The kinds of records that models read: texts (``text.Text``) and images (``image.patches``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attnpriv.data.unknown import Unknown
from attnpriv.modality import Modality


class AnyModality(Modality[Any, Any], Protocol):
    """How one model reads its kind of record, whatever that is."""

    def unknown(self, records: Sequence[Any], samples: Sequence[Any], /) -> Unknown:
        """What of records, read as given, the model cannot tell apart."""

    def sees(self, sample: Any, /) -> bool:
        """Whether the model sees anything at all of a record."""

    def is_truncated(self, record: Any, sample: Any, /) -> bool:
        """Whether there is more of a record than the model reads."""

    def words(self, record: Any, sample: Any, /) -> list[str]:
        """What stands at each position, as users know it; empty where there is no word for it."""
