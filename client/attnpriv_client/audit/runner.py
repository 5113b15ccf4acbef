"""The whole audit: ask about the rows, measure what the answers allow, and say what they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from attnpriv.errors import InputError
from attnpriv_client.audit.alignment import align
from attnpriv_client.audit.asking import INTERRUPTED, Answered, Asker, Explained, Progress
from attnpriv_client.audit.attack_results import ShadowAttacksResult
from attnpriv_client.audit.attributes import attributes
from attnpriv_client.audit.certificate import certificate
from attnpriv_client.audit.counterfactual import counterfactual
from attnpriv_client.audit.explanation_attacks import explanation_attacks
from attnpriv_client.audit.exposure import exposure
from attnpriv_client.audit.faithfulness import faithfulness
from attnpriv_client.audit.hidden_words import hidden_words
from attnpriv_client.audit.leaks import leaks_of
from attnpriv_client.audit.lift import lift
from attnpriv_client.audit.membership import membership, utility
from attnpriv_client.audit.release import release
from attnpriv_client.audit.results import Audit, NotRun, NotRunError, PartlyRun, Result
from attnpriv_client.audit.rows import Row, with_classes
from attnpriv_client.audit.shadow_answers import ShadowAnswers
from attnpriv_client.audit.shadow_attacks import NO_SHADOWS, shadow_attacks
from attnpriv_client.client import Client
from attnpriv_client.domain import Explanation, ModelCard, Prediction

FROM_PREDICTIONS = (
    "utility", "counterfactual", "membership", "shadow_attacks", "exposure", "faithfulness",
)  # fmt: skip
FROM_EXPLANATIONS = (
    "explanation_attacks", "hidden_words", "lift", "faithfulness", "certificate",
)  # fmt: skip
# These ask about more texts than the rows.
ASKING = ("counterfactual", "membership", "exposure", "faithfulness")

Measure = Callable[[], Result]


def run_audit(
    client: Client,
    model: str,
    rows: Sequence[Row],
    *,
    data: str,
    source: str,
    version: str | None,
    limit: int,
    seed: int,
    progress: Progress,
    shadows: ShadowAnswers | None = None,
) -> Audit:
    """Audit one model through the answers that this caller gets.

    Claim: nothing is asked that another caller of the same role could not ask, and no more than
    ``limit + 1`` explanations. Everything that is drawn depends on the rows and the seed alone. Not
    covered: what other callers are told, and what the policy withholds.

    Once the rows have their predictions, Ctrl-C ends the audit with what was measured by then.

    Args:
        client: the client that asks.
        model: name of the model.
        rows: at most ``limit`` of them are asked about; replacements come from all of them.
        data: the name of the rows in the report.
        source: the file of the rows, for errors.
        version: version of the model; None for the newest one, which is then kept throughout.
        limit: most rows to ask about, drawn without replacement.
        seed: seed of everything that is drawn.
        progress: told of every answer.
        shadows: the answers of shadow models of this model, for stronger membership attacks.

    Raises:
        InputError: a label is not one of the model's classes, the model changed meanwhile, or the
            shadow models were made from other data.
        ServiceError: no server, no such model, or another failure that no policy is behind.
    """
    chosen = sorted(Random(seed).sample(range(len(rows)), min(limit, len(rows))))
    asker = Asker(client, model, version, progress)

    def with_names(names: Sequence[str]) -> list[Row]:
        try:
            named = with_classes(rows, names)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if shadows is not None:
            shadows.check(named, source)
        return [named[i] for i in chosen]

    gathered = _gather(asker, [rows[i] for i in chosen], with_names)
    against = None if shadows is None else (shadows, chosen)
    measures, not_run, stopped = _measure_all(gathered, asker, rows, against, seed)
    return Audit(
        model=model,
        version=gathered.version,
        data=data,
        rows_in_file=len(rows),
        rows=len(chosen),
        rows_refused=gathered.refused,
        rows_truncated=sum(a.truncated for a in gathered.answered),
        seed=seed,
        options={"limit": limit, "version": version},
        measures=measures,
        not_run=not_run,
        partly_run=_partly_run(gathered, measures),
        interrupted=stopped,
        charged_epsilon=asker.micro_epsilon / 10**6,
        leaks=leaks_of(measures, not_run),
    )


@dataclass(frozen=True)
class _Gathered:
    """What the server answered to the rows.

    Attributes:
        answered: the rows with their answers.
        again: a second explanation of the first row that has one.
        card: the model card; None if it may not be read.
        version: the version that answered.
        no_predictions: why there are no predictions, if there are none.
        no_explanations: why there are no explanations, or no more of them.
    """

    answered: tuple[Answered, ...]
    again: Explanation | None
    card: ModelCard | None
    version: str
    no_predictions: str | None
    no_explanations: str | None

    @property
    def refused(self) -> int:
        """Number of rows whose text the server refuses."""
        return 0 if self.no_predictions else sum(a.prediction is None for a in self.answered)

    @property
    def classes(self) -> list[str]:
        """The classes, as far as answers or the card name them."""
        if self.card is not None:
            return list(self.card.summary.label_names)
        answers = [a.prediction for a in self.answered if a.prediction is not None]
        return list(answers[0].probabilities or {}) if answers else []

    @property
    def explained(self) -> int:
        """Number of rows that have an explanation."""
        return sum(a.explanation is not None for a in self.answered)


def _gather(
    asker: Asker, rows: Sequence[Row], with_names: Callable[[Sequence[str]], Sequence[Row]]
) -> _Gathered:
    card = asker.card()
    if card is not None:
        asker.version = card.summary.version
        rows = with_names(card.summary.label_names)
    predictions, no_predictions = _predict(asker, rows)
    probabilities = [p.probabilities for p in predictions.values() if p and p.probabilities]
    if probabilities:
        rows = with_names(list(probabilities[0]))
    wanted = (row.text for row in rows if no_predictions or predictions[row.text] is not None)
    texts = list(dict.fromkeys(wanted))
    explained = asker.explain([*texts, *texts[:1]])
    explanations = dict(zip(texts, explained.answers, strict=False))
    return _Gathered(
        answered=tuple(
            _answered(row, predictions.get(row.text), explanations.get(row.text)) for row in rows
        ),
        again=explained.answers[-1] if len(explained.answers) > len(texts) else None,
        card=card,
        version=asker.version or _version(explained),
        no_predictions=no_predictions,
        no_explanations=explained.stopped,
    )


def _predict(
    asker: Asker, rows: Sequence[Row]
) -> tuple[Mapping[str, Prediction | None], str | None]:
    """Predictions by text; or none, with the reason."""
    try:
        found = asker.predict((row.text for row in rows), "predictions")
    except NotRunError as error:
        return {}, str(error)
    versions = {each.version for each in found.values() if each is not None}
    if len(versions) > 1:
        raise InputError("the model got a new version during the audit: choose one with --version")
    asker.version = asker.version or next(iter(versions), None)
    return found, None


def _version(explained: Explained) -> str:
    return next((each.version for each in explained.answers if each is not None), "unknown")


def _answered(row: Row, prediction: Prediction | None, explanation: Explanation | None) -> Answered:
    if explanation is None:
        return Answered(row, prediction)
    answer = explanation.prediction or prediction
    truncated = answer is not None and answer.truncated
    return Answered(row, prediction, explanation, align(row.text, explanation.tokens, truncated))


Against = tuple[ShadowAnswers, Sequence[int]]
"""Shadow models, and the place of each audited row in their data."""


def _measure_all(
    gathered: _Gathered,
    asker: Asker,
    everything: Sequence[Row],
    against: Against | None,
    seed: int,
) -> tuple[dict[str, Result], tuple[NotRun, ...], bool]:
    """The measures that ran, the others with their reasons, and whether they were interrupted."""
    measures: dict[str, Result] = {}
    not_run = []
    stopped = gathered.no_explanations == INTERRUPTED
    for name, measure in _steps(gathered, asker, everything, against, seed).items():
        try:
            if stopped and name in ASKING:
                raise NotRunError(INTERRUPTED)
            _require_answers(name, gathered)
            measures[name] = measure()
        except NotRunError as error:
            not_run.append(NotRun(name, str(error)))
        except KeyboardInterrupt:
            not_run.append(NotRun(name, INTERRUPTED))
            stopped = True
    return measures, tuple(not_run), stopped


def _steps(
    gathered: _Gathered,
    asker: Asker,
    everything: Sequence[Row],
    against: Against | None,
    seed: int,
) -> dict[str, Measure]:
    """The measures, in the order of the report."""
    answered, card, ask = gathered.answered, gathered.card, asker.predict
    return {
        "release": lambda: release(answered, gathered.again, card),
        "utility": lambda: utility(answered),
        "counterfactual": lambda: counterfactual(answered, everything, ask, seed),
        "membership": lambda: membership(answered, card, ask, seed),
        "shadow_attacks": lambda: _with_shadows(answered, against, card, seed),
        "explanation_attacks": lambda: explanation_attacks(answered, card, seed),
        "exposure": lambda: exposure(everything, card, ask, gathered.classes, seed),
        "hidden_words": lambda: hidden_words(answered, seed),
        "attributes": lambda: attributes(answered, seed),
        "lift": lambda: lift(answered, seed),
        "faithfulness": lambda: faithfulness(answered, ask, seed),
        "certificate": lambda: certificate(answered, card),
    }


def _with_shadows(
    answered: Sequence[Answered], against: Against | None, card: ModelCard | None, seed: int
) -> ShadowAttacksResult:
    if against is None:
        raise NotRunError(NO_SHADOWS)
    shadows, positions = against
    return shadow_attacks(answered, positions, shadows, card, seed)


def _require_answers(name: str, gathered: _Gathered) -> None:
    if name in FROM_PREDICTIONS and gathered.no_predictions:
        raise NotRunError(gathered.no_predictions)
    if name in FROM_EXPLANATIONS and gathered.no_explanations and not gathered.explained:
        raise NotRunError(gathered.no_explanations)


def _partly_run(gathered: _Gathered, measures: Mapping[str, Result]) -> tuple[PartlyRun, ...]:
    """The measures that lack rows because explanations ended before the rows did."""
    if gathered.no_explanations is None:
        return ()
    return tuple(
        PartlyRun(name, gathered.explained, len(gathered.answered), gathered.no_explanations)
        for name in measures
        if name in ("release", *FROM_EXPLANATIONS)
    )
