"""What Summarize tells of many texts: which of it is asked for and allowed, and what a text gives.

Each text gives a label, and the shares of its attention and attribution that fall on each type of
personal data and on each word. ``attnpriv.release.summary`` bounds that, adds it up and noises it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnpriv.release.summary import (
    CAP,
    KINDS,
    UNTOLD,
    Kind,
    Noised,
    Summarizer,
    Summary,
)
from attnpriv.sensitive import Reading
from attnpriv.spans import Span
from attnpriv.visible import has_visible
from attnpriv_server.asking import Asked, refuse_input
from attnpriv_server.domain import (
    FIGURES,
    Code,
    GroupSummary,
    LabelSummary,
    RefusedError,
    SummarizeRequest,
)
from attnpriv_server.explain import Scored, Wanted
from attnpriv_server.policy import SummarizeRules
from attnpriv_server.release import last_attention, micro_epsilon

MOST_WORDS = 100
LONGEST_WORD = 64
WANTED: dict[Kind, Wanted] = {
    "attention": Wanted(attention=True, rollout=False, integrated_gradients=False),
    "attribution": Wanted(attention=False, rollout=False, integrated_gradients=True),
}


@dataclass(frozen=True)
class Groups:
    """What means are told of, types first.

    Attributes:
        types: of personal data, those that the detector can find.
        words: those that the caller named.
    """

    types: tuple[str, ...]
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.types) + len(self.words)

    def members(self, reading: Reading) -> NDArray[np.bool_]:
        """Which positions of a redacted text belong to which group, [groups, T].

        A part that was hidden for several types belongs to the first of them. What is hidden
        belongs to no word.
        """
        redacted, encoding = reading.redacted, reading.encoding
        hidden = [redacted.types_at(place) for place in encoding.places]
        shown = np.array([not types for types in hidden])
        of_types = [[kind in types[:1] for types in hidden] for kind in self.types]
        of_words = [encoding.marks(_places(word, redacted.text)) & shown for word in self.words]
        return np.array([*of_types, *of_words], dtype=bool)


def check_question(request: SummarizeRequest) -> None:
    """Refuse what no policy could answer.

    Raises:
        RefusedError: INVALID_ARGUMENT, with the field.
    """
    names = ", ".join(FIGURES)
    if not request.figures:
        refuse_input("figures", f"expected at least one of {names}")
    for index, figure in enumerate(request.figures):
        if figure not in FIGURES or figure in request.figures[:index]:
            refuse_input(f"figures[{index}]", f"expected {names}, each once at most")
    if request.by_label and not ("labels" in request.figures and len(request.figures) > 1):
        refuse_input("by_label", "expected labels and a mean among the figures")
    if request.cap is not None and not 0.01 <= request.cap <= 1:
        refuse_input("cap", "expected a number from 0.01 to 1")
    _check_words(request.words)


def rules_of(asked: Asked, request: SummarizeRequest) -> SummarizeRules:
    """The rules by which a summary is answered.

    Raises:
        RefusedError: PERMISSION_DENIED where the policy withholds what is asked for.
    """
    rules = asked.role.of_model(request.model).summarize
    if rules is None:
        raise RefusedError(Code.PERMISSION_DENIED, "the policy withholds summaries")
    if asked.restricted and set(request.figures) != {"labels"}:
        raise RefusedError(
            Code.PERMISSION_DENIED,
            "the policy withholds all but labels from summaries by models that were not trained "
            "privately",
        )
    for figure in request.figures:
        if figure not in rules.figures:
            raise RefusedError(
                Code.PERMISSION_DENIED, f"the policy withholds {figure} from summaries"
            )
    return rules


def summarizer(
    rules: SummarizeRules, request: SummarizeRequest, classes: int, groups: Groups
) -> Summarizer:
    """What sums and noises the texts of a request."""
    return Summarizer(
        texts=len(request.texts),
        classes=classes,
        groups=max(len(groups), 1),
        micro_epsilon=micro_epsilon(rules.epsilon),
        labels="labels" in request.figures,
        kinds=kinds_of(request),
        by_label=request.by_label,
        cap=CAP if request.cap is None else request.cap,
    )


def kinds_of(request: SummarizeRequest) -> tuple[Kind, ...]:
    """Of what means are asked for."""
    return tuple(kind for kind in KINDS if kind in request.figures)


def shares(kind: Kind, scored: Scored, members: NDArray[np.bool_]) -> list[float]:
    """The part of a text's attention or attribution that falls on each group.

    Attributions that were not computed to the end give nothing: to refuse them would tell of the
    text.
    """
    if kind == "attention":
        return _parts(last_attention(scored), members)
    gradients = scored.integrated_gradients
    if gradients is None:
        return [0.0] * len(members)
    return _parts(np.abs(gradients), members)


def labels_told(summary: Summary, label_names: Sequence[str]) -> tuple[LabelSummary, ...]:
    """What is told of each label."""
    told = {kind: summary.by_label.get(kind, ()) for kind in KINDS}
    return tuple(
        LabelSummary(label_names[index], count, *(_at(told[kind], index) for kind in KINDS))
        for index, count in enumerate(summary.labels)
    )


def groups_told(summary: Summary, groups: Groups) -> tuple[GroupSummary, ...]:
    """What is told of each group."""
    if not summary.means:
        return ()
    means = {kind: summary.means.get(kind, ()) for kind in KINDS}
    return tuple(
        GroupSummary(name, index >= len(groups.types), *(_at(means[kind], index) for kind in KINDS))
        for index, name in enumerate((*groups.types, *groups.words))
    )


def _check_words(words: Sequence[str]) -> None:
    if len(words) > MOST_WORDS:
        refuse_input("words", f"expected at most {MOST_WORDS} words, got {len(words)}")
    folded = [word.casefold() for word in words]
    for index, word in enumerate(words):
        path = f"words[{index}]"
        if not (has_visible(word) and word == word.strip() and len(word) <= LONGEST_WORD):
            refuse_input(
                path, f"expected a word of 1 to {LONGEST_WORD} characters, without space around it"
            )
        if folded[index] in folded[:index]:
            refuse_input(path, "expected each word once")


def _places(word: str, text: str) -> list[Span]:
    """Where a word stands in a text, as a whole and in any case."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [Span(*found.span(), "WORD") for found in re.finditer(pattern, text, re.IGNORECASE)]


def _parts(values: NDArray[np.float64], members: NDArray[np.bool_]) -> list[float]:
    total = float(values.sum())
    if total <= 0:
        return [0.0] * len(members)
    parts: list[float] = (members @ values / total).tolist()
    return parts


def _at(values: Sequence[Noised], index: int) -> Noised | None:
    return values[index] if values and values[index] != UNTOLD else None
