"""Attacks on the text itself: how few readable edits change an answer.

The accuracies are upper bounds on the accuracy under the best such edits. Where answers are
certified, no attack may cross the certificate, which is a control.

Not covered: whether an edited text still means the same to a reader, edits beyond those of
``attnpriv.audit.robustness.text_edits``, and more of them than are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.robustness import EDITS, TEXT_EDITS
from attnpriv.audit.robustness.text_controls import controls
from attnpriv.audit.robustness.text_edits import Family, choices_at, families, places_of
from attnpriv.audit.robustness.text_search import Answer, Found, Target, search, token_distance
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate, wilson
from attnpriv.models.classifier import pooled_features
from attnpriv.runs.folder import Run

WIDTH = 3  # of the beam
WHOLE = 1_000_000  # tokens: texts are compared before they are cut
USUAL_QUERIES = 400  # texts that are answered for one that is attacked; tells the expected end


@dataclass(frozen=True)
class AccuracyAtEdits:
    """Accuracy on texts with at most so many edits.

    Attributes:
        edits: their number.
        greedy: after the greedy search among all edits.
        strongest: after every search here, whichever needs the fewest edits.
    """

    edits: int
    greedy: Estimate
    strongest: Estimate


@dataclass(frozen=True)
class AccuracyAtTokens:
    """Accuracy on texts of which at most so many tokens were substituted, inserted or deleted.

    Attributes:
        edits: of tokens.
        accuracy: after every search here.
        certified: the share that is right and proved to withstand so many; None without a proof.
    """

    edits: int
    accuracy: Estimate
    certified: Estimate | None


@dataclass(frozen=True)
class FamilyAttack:
    """Accuracy under the greedy search among edits of one kind; ``queries`` is a mean."""

    name: str
    one: Estimate
    most: Estimate
    queries: float | None


@dataclass(frozen=True)
class TextAttackResult:
    """Accuracy under edits of the text, with its controls.

    ``queries`` are the texts that the model answered for one attacked text, on average.
    """

    documents: int
    sampled_from: int
    clean: Estimate
    curve: tuple[AccuracyAtEdits, ...]
    tokens: tuple[AccuracyAtTokens, ...]
    families: tuple[FamilyAttack, ...]
    greedy_queries: float | None
    beam_queries: float | None
    positive: Control
    null: Control
    within: Control | None
    valid: bool
    seed: int


@dataclass(frozen=True)
class _Attacked:
    """What all searches found on one document that is answered rightly.

    Attributes:
        families: by the names of the kinds of edits.
        greedy: among all edits.
        beam: likewise, with a beam.
        tokens: the fewest edits of tokens that changed the answer; None where none did.
        radius: the number of them that the answer is proved to withstand; None without a proof.
    """

    families: dict[str, Found]
    greedy: Found
    beam: Found
    tokens: int | None
    radius: int | None

    @property
    def strongest(self) -> int | None:
        """The fewest edits of any search."""
        counts = [each.edits for each in (*self.families.values(), self.greedy, self.beam)]
        return min((count for count in counts if count is not None), default=None)


def text_attacks(
    run: Run,
    documents: Documents,
    most: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> TextAttackResult:
    """Accuracy on a seeded sample of documents whose texts are edited.

    The attacker sees the logits of any text. ``strongest`` counts a document as broken when the
    search among any one kind of edits, among all of them, or the beam broke it.

    Controls: a classifier that reads one word of each text must be broken by one edit; one that
    reads nothing must never be. Where answers are certified, none may change within its radius.

    Args:
        run: the model and its tokeniser.
        documents: tokenised held-out records, by that tokeniser.
        most: how many to attack at most.
        seed: of the sample and the letters of edits.
        progress: called with documents done and their number.
        figures: takes in the accuracies by document.
    """
    kinds, answer = families(run), model_answer(run)
    chosen = sample(len(documents), most, seed)
    attacked: list[_Attacked | None] = []
    for done, document in enumerate(chosen, start=1):
        attacked.append(_attack(run, answer, kinds, documents, document, seed))
        if progress:
            progress(done, len(chosen))
    positive, null = controls(run, kinds, documents, chosen, seed)
    proved = run.edit_certifier is not None
    within = _within(attacked) if proved else None
    if figures is not None:
        figures |= _figures(chosen, attacked)
    return TextAttackResult(
        documents=len(chosen),
        sampled_from=len(documents),
        clean=_standing(attacked, lambda each: True),
        curve=tuple(_at_edits(attacked, edits) for edits in TEXT_EDITS),
        tokens=tuple(_at_tokens(attacked, edits, proved) for edits in EDITS),
        families=tuple(_family(attacked, name) for name in kinds),
        greedy_queries=_queries(attacked, lambda each: each.greedy),
        beam_queries=_queries(attacked, lambda each: each.beam),
        positive=positive,
        null=null,
        within=within,
        valid=positive.passed and null.passed and (within is None or within.passed),
        seed=seed,
    )


def model_answer(run: Run) -> Answer:
    """What a run answers to texts."""

    def answer(texts: Sequence[str]) -> Floats:
        features = pooled_features(run.model, run.modality, run.modality.read(texts))
        with torch.no_grad():
            logits: Floats = run.model.head(features).double().numpy()
        return logits

    return answer


def _attack(
    run: Run,
    answer: Answer,
    kinds: Mapping[str, Family],
    documents: Documents,
    document: int,
    seed: int,
) -> _Attacked | None:
    """None where the answer is wrong already."""
    text, label = documents.data.records[document], documents.data.labels[document]
    if answer([text])[0].argmax() != label:
        return None
    encoding = documents.samples[document]
    target = Target.of(answer, text, label, places_of(text, encoding.end))
    each = {name: choices_at([kind], text, target.places, seed) for name, kind in kinds.items()}
    every = [[edit for own in edits for edit in own] for edits in zip(*each.values(), strict=True)]
    most = TEXT_EDITS[-1]
    alone = {name: search(target, choices, most, 1) for name, choices in each.items()}
    greedy = search(target, every, most, 1)
    # A beam cannot find fewer edits than one.
    beam = greedy if greedy.edits == 1 else search(target, every, most, WIDTH)
    broken = {found.text for found in (*alone.values(), greedy, beam) if found.edits}
    certifier = run.edit_certifier
    return _Attacked(
        alone,
        greedy,
        beam,
        tokens=min((_distance(run, text, other) for other in broken), default=None),
        radius=None if certifier is None else certifier.radii(encoding).edits,
    )


def _distance(run: Run, text: str, other: str) -> int:
    one, changed = (run.tokenizer.encode(each, WHOLE).ids for each in (text, other))
    return token_distance(one, changed)


def _standing(
    attacked: Sequence[_Attacked | None], stands: Callable[[_Attacked], bool]
) -> Estimate:
    return wilson(sum(each is not None and stands(each) for each in attacked), len(attacked))


def _beyond(count: int | None, edits: int) -> bool:
    """Whether an answer stands after so many edits, if the fewest that change it are ``count``."""
    return count is None or count > edits


def _at_edits(attacked: Sequence[_Attacked | None], edits: int) -> AccuracyAtEdits:
    return AccuracyAtEdits(
        edits,
        _standing(attacked, lambda each: _beyond(each.greedy.edits, edits)),
        _standing(attacked, lambda each: _beyond(each.strongest, edits)),
    )


def _at_tokens(attacked: Sequence[_Attacked | None], edits: int, proved: bool) -> AccuracyAtTokens:
    certified = _standing(attacked, lambda each: each.radius is not None and each.radius >= edits)
    accuracy = _standing(attacked, lambda each: _beyond(each.tokens, edits))
    return AccuracyAtTokens(edits, accuracy, certified if proved else None)


def _family(attacked: Sequence[_Attacked | None], name: str) -> FamilyAttack:
    def after(edits: int) -> Estimate:
        return _standing(attacked, lambda each: _beyond(each.families[name].edits, edits))

    return FamilyAttack(
        name, after(1), after(TEXT_EDITS[-1]), _queries(attacked, lambda each: each.families[name])
    )


def _queries(
    attacked: Sequence[_Attacked | None], of: Callable[[_Attacked], Found]
) -> float | None:
    counts = [of(each).queries for each in attacked if each is not None]
    return fmean(counts) if counts else None


def _figures(chosen: Sequence[int], attacked: Sequence[_Attacked | None]) -> Figures:
    columns = {
        f"text_attacks.curve[{edits}].strongest": [
            each is not None and _beyond(each.strongest, edits) for each in attacked
        ]
        for edits in TEXT_EDITS
    }
    return {path: figure(chosen, np.array(own, dtype=np.float64)) for path, own in columns.items()}


def _within(attacked: Sequence[_Attacked | None]) -> Control:
    known = [each for each in attacked if each is not None and each.radius is not None]
    crossed = sum(each.tokens is not None and each.tokens <= (each.radius or 0) for each in known)
    return Control(
        f"{len(known)} certified answers: no edits within the radius change one",
        float(crossed),
        crossed == 0,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return subject.taken(subject.options.text_attack_documents) * USUAL_QUERIES


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> TextAttackResult:
    """As a measure of an audit."""
    return text_attacks(
        subject.run,
        subject.documents,
        subject.affordable(subject.options.text_attack_documents),
        subject.options.seed,
        progress,
        figures,
    )
