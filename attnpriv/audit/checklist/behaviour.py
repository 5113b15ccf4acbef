"""How often a model fails behavioural tests: other names, places, spellings, and what was added.

The texts are invented or the user's own; no audited record is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from attnpriv.audit.checklist.files import Behaviour, Case, Checklist, Kind
from attnpriv.audit.figures import Figures
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import predict_probabilities

DRAWS = 32  # of the control that must fail
Answer = Callable[[Sequence[str]], Floats]
"""Texts to class probabilities [N, K]."""


@dataclass(frozen=True)
class BehaviourTest:
    """One test and how often it failed.

    Attributes:
        name: of the test.
        kind: ``invariance`` or ``direction``.
        cases: texts that were changed, each in several ways.
        failures: share of the cases in which at least one change made the answer do what it must
            not.
        worst_template: the number of the template that failed most; None where none did.
    """

    name: str
    kind: Kind
    cases: int
    failures: Estimate
    worst_template: int | None


@dataclass(frozen=True)
class ChecklistResult:
    """Behavioural tests of one run.

    Attributes:
        source: where the tests are from: a file's name.
        sha256: of the file.
        tests: that were run.
        cases: of all of them.
        left_out: names of those about a class that the model does not have.
        invariance: share of the cases of all tests of invariance that failed.
        direction: the same of the directional ones.
        positive: an answer that is drawn for each text anew must fail.
        null: one that reads nothing of the text must not.
        valid: whether both controls passed.
    """

    source: str
    sha256: str
    tests: tuple[BehaviourTest, ...]
    cases: int
    left_out: tuple[str, ...]
    invariance: Estimate
    direction: Estimate
    positive: Control
    null: Control
    valid: bool


def behaviour(checklist: Checklist, answer: Answer, label_names: Sequence[str]) -> ChecklistResult:
    """Run the tests of a file on what answers texts.

    A case of invariance fails where any of its changes gets another label than the text itself; a
    directional one where a change moves the probability of its class by more than the tolerance
    in the direction that it must not.
    Not covered: texts that no template has; whether a changed text does mean the same. Intervals
    (Wilson) take cases as independent, which those of one template are not.

    Args:
        checklist: the tests.
        answer: of the model.
        label_names: its K classes.
    """
    known, texts, classes = checklist.about(label_names), checklist.texts, len(label_names)
    left_out = tuple(test.name for test in checklist.tests if test not in known)
    failed = _failed(known, answer(texts), texts, label_names)
    drawn = fmean(
        _share(_failed(known, each, texts, label_names)) for each in _drawn(texts, classes)
    )
    blind = np.tile(np.eye(classes)[0], (len(texts), 1))
    unmoved = _share(_failed(known, blind, texts, label_names))
    positive = Control("answers drawn for each text anew: cases fail", drawn, drawn > 0)
    null = Control("an answer that reads nothing: no case fails", unmoved, unmoved == 0)
    return ChecklistResult(
        source=checklist.source,
        sha256=checklist.sha256,
        tests=tuple(_result(test, own) for test, own in zip(known, failed, strict=True)),
        cases=sum(map(len, failed)),
        left_out=left_out,
        invariance=_of_kind("invariance", known, failed),
        direction=_of_kind("direction", known, failed),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
    )


def _failed(
    tests: Sequence[Behaviour], answers: Floats, texts: Sequence[str], label_names: Sequence[str]
) -> list[list[bool]]:
    """For each test which of its cases fail."""
    found = dict(zip(texts, answers, strict=True))
    return [[_fails(test, case, found, label_names) for case in test.cases] for test in tests]


def _fails(
    test: Behaviour, case: Case, found: Mapping[str, Floats], label_names: Sequence[str]
) -> bool:
    before, after = found[case.text], np.stack([found[text] for text in case.changed])
    if test.label is None:
        return bool((after.argmax(1) != before.argmax()).any())
    label = label_names.index(test.label)
    rises = after[:, label] - before[label]
    wrong = -rises if test.expect == "not lower" else rises
    return bool(wrong.max() > test.tolerance)


def _result(test: Behaviour, failed: Sequence[bool]) -> BehaviourTest:
    counts = Counter(case.template for case, fails in zip(test.cases, failed, strict=True) if fails)
    worst = min(counts, key=lambda number: (-counts[number], number)) if counts else None
    return BehaviourTest(test.name, test.kind, len(failed), wilson(sum(failed), len(failed)), worst)


def _of_kind(kind: Kind, tests: Sequence[Behaviour], failed: Sequence[Sequence[bool]]) -> Estimate:
    own = [
        fails
        for test, each in zip(tests, failed, strict=True)
        if test.kind == kind
        for fails in each
    ]
    return wilson(sum(own), len(own))


def _share(failed: Sequence[Sequence[bool]]) -> float:
    cases = [fails for each in failed for fails in each]
    return sum(cases) / max(1, len(cases))


def _drawn(texts: Sequence[str], classes: int) -> Iterator[Floats]:
    """Many times, for each text a class that only its hash decides."""
    digests = [hashlib.blake2b(text.encode(), digest_size=DRAWS).digest() for text in texts]
    for draw in range(DRAWS):
        yield np.eye(classes)[[digest[draw] % classes for digest in digests]]


def _of_run(run: Run) -> Answer:
    return lambda texts: predict_probabilities(run, texts).astype(np.float64)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return len(subject.checklist.texts) / 2  # they are short


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> ChecklistResult:
    """As a measure of an audit."""
    return behaviour(subject.checklist, _of_run(subject.run), subject.run.label_names)
