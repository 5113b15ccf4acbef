"""Reads and scores the texts of a summary, a few at a time, so that other callers get their turns.

Nothing of it may refuse once the summary is paid for, but for a full server or a deadline: a
refusal would tell of a text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from attnpriv.release.summary import Kind, TextFigures
from attnpriv.sensitive import Reading
from attnpriv_server.asking import Asked, Records
from attnpriv_server.domain import SummarizeRequest
from attnpriv_server.policy import SummarizeRules
from attnpriv_server.policy.rules import Reads
from attnpriv_server.release import Classified, aligned
from attnpriv_server.scoring import Scoring
from attnpriv_server.summaries import WANTED, Groups, kinds_of, shares

TEXTS_AT_ONCE = 32


class TextsToSum:
    """The texts of one summary.

    Args:
        scoring: reads and scores them.
        asked: the request, with all that decides the answer.
        rules: of the caller's role; they allow what is asked for.
        request: what is asked.
        groups: what means are told of.
    """

    def __init__(
        self,
        scoring: Scoring,
        asked: Asked,
        rules: SummarizeRules,
        request: SummarizeRequest,
        groups: Groups,
    ) -> None:
        self._scoring = scoring
        self._asked = asked
        self._request = request
        self._groups = groups
        self._kinds = kinds_of(request)
        self._reads = {name: rules.figures[name].read for name in request.figures}
        self._readings: list[Reading] = []

    @property
    def reads(self) -> Collection[Reads]:
        """What the model has to read."""
        return frozenset(self._reads.values())

    @property
    def searched(self) -> bool:
        """Whether personal data has to be found."""
        return bool(self._kinds) or self.reads != {"full"}

    async def read(self) -> None:
        """Find personal data where it is needed, and check that there is something to read.

        Raises:
            RefusedError: a text cannot be searched or read, or the deadline passed.
        """
        for start, texts in self._parts():
            self._asked.deadline.check()
            if self.searched:
                found = await self._scoring.readings(self._asked, _records(texts), first=start)
                self._readings += [each for each in found if isinstance(each, Reading)]  # all are
            if "full" in self.reads:
                await self._scoring.check_readable(self._asked, _records(texts), first=start)

    async def figures(self) -> list[TextFigures]:
        """What each text gives, in their order.

        Raises:
            RefusedError: the server is full, or the deadline passed.
        """
        found: list[TextFigures] = []
        for start, texts in self._parts():
            self._asked.deadline.check()
            readings = self._readings[start : start + len(texts)]
            classes = {read: await self._classified(read, texts, readings) for read in self._labels}
            for index, text in enumerate(texts):
                own = {read: classified[index].best for read, classified in classes.items()}
                reading = readings[index] if readings else None
                found.append(await self._figures(text, reading, own))
        return found

    @property
    def _labels(self) -> frozenset[Reads]:
        """By which readings labels are needed: to be counted, or to be explained."""
        return frozenset(self._reads[name] for name in self._reads if name != "attention")

    def _parts(self) -> Iterator[tuple[int, Sequence[str]]]:
        texts = self._request.texts
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            yield start, texts[start : start + TEXTS_AT_ONCE]

    async def _classified(
        self, read: Reads, texts: Sequence[str], readings: Sequence[Reading]
    ) -> list[Classified]:
        if read == "full":
            return await self._scoring.classified_in_full(
                self._asked, _records(texts), can_refuse=False
            )
        return await self._scoring.classified_readings(self._asked, readings, read)

    async def _figures(
        self, text: str, reading: Reading | None, labels: Mapping[Reads, int]
    ) -> TextFigures:
        label = labels[self._reads["labels"]] if "labels" in self._reads else 0
        if reading is None:  # nothing but labels is asked for
            return TextFigures(label, {})
        shared = {kind: await self._shares(kind, text, reading, labels) for kind in self._kinds}
        return TextFigures(label, shared)

    async def _shares(
        self, kind: Kind, text: str, reading: Reading, labels: Mapping[Reads, int]
    ) -> list[float]:
        read = self._reads[kind]
        target = labels.get(read, 0)  # of attributions alone
        if read == "full":
            sight = await self._scoring.sight_in_full(self._asked, text, target, WANTED[kind])
        else:
            sight = await self._scoring.sight_of_reading(
                self._asked, reading, read, target, WANTED[kind]
            )
        scored = aligned({read: sight}, reading)[read].scored
        return shares(kind, scored, self._groups.members(reading))


def _records(texts: Sequence[str]) -> Records:
    return Records("texts", tuple(texts), ())
