"""The whole audit: ask about the rows, measure what the answers allow, say what they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from attnpriv.errors import InputError
from attnpriv_client.audit.alignment import align
from attnpriv_client.audit.asking import INTERRUPTED, Answered, Asker, Explained, Progress
from attnpriv_client.audit.certificate import certificate
from attnpriv_client.audit.counterfactual import counterfactual
from attnpriv_client.audit.faithfulness import faithfulness
from attnpriv_client.audit.lift import lift
from attnpriv_client.audit.membership import membership, utility
from attnpriv_client.audit.release import release
from attnpriv_client.audit.results import Audit, NotRun, NotRunError, PartlyRun, Result
from attnpriv_client.audit.rows import Row
from attnpriv_client.client import Client
from attnpriv_client.domain import Explanation, ModelCard, Prediction

FROM_PREDICTIONS = ("utility", "counterfactual", "membership", "faithfulness")
FROM_EXPLANATIONS = ("lift", "faithfulness", "certificate")
ASKING = ("counterfactual", "faithfulness")  # these ask more than the rows

Measure = Callable[[], Result]


def run_audit(
    client: Client,
    model: str,
    rows: Sequence[Row],
    *,
    data: str,
    version: str | None,
    limit: int,
    seed: int,
    progress: Progress,
) -> Audit:
    """Audit one model through the answers that this caller gets.

    Claim: nothing is asked that another caller of the same role could not ask, and no more than
    ``limit + 1`` explanations. All that is drawn depends on the rows and the seed alone. Not
    covered: what other callers are told, and what the policy withholds.

    Ctrl-C ends the audit with what was measured by then, once the rows have their predictions.

    Args:
        client: asks.
        model: its name.
        rows: of which at most ``limit`` are asked about; replacements come from all of them.
        data: what to call them in the report.
        version: of the model; None for the newest, and then for that one throughout.
        limit: of rows, drawn without replacement.
        seed: of all that is drawn.
        progress: told of every answer.

    Raises:
        InputError: a label is not one of the model's, or the model changed meanwhile.
        ServiceError: no server, no such model, or another failure that no policy is behind.
    """
    chosen = sorted(Random(seed).sample(range(len(rows)), min(limit, len(rows))))
    asker = Asker(client, model, version, progress)
    gathered = _gather(asker, [rows[i] for i in chosen])
    measures, not_run, stopped = _measure_all(gathered, asker, rows, seed)
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
    )


@dataclass(frozen=True)
class _Gathered:
    """What the server said to the rows.

    Attributes:
        answered: the rows with their answers.
        again: a second explanation of the first row that has one.
        card: where it may be read.
        version: that answered.
        no_predictions: why there are none, if so.
        no_explanations: why there are none, or no more, if so.
    """

    answered: tuple[Answered, ...]
    again: Explanation | None
    card: ModelCard | None
    version: str
    no_predictions: str | None
    no_explanations: str | None

    @property
    def refused(self) -> int:
        """Rows whose text the server refuses."""
        return 0 if self.no_predictions else sum(a.prediction is None for a in self.answered)

    @property
    def explained(self) -> int:
        """Rows that have an explanation."""
        return sum(a.explanation is not None for a in self.answered)


def _gather(asker: Asker, rows: Sequence[Row]) -> _Gathered:
    card = asker.card()
    if card is not None:
        asker.version = card.summary.version
        _check_labels(rows, card.summary.label_names)
    predictions, no_predictions = _predict(asker, rows)
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
    """Predictions by text; or none, and why."""
    try:
        found = asker.predict((row.text for row in rows), "predictions")
    except NotRunError as error:
        return {}, str(error)
    answers = [each for each in found.values() if each is not None]
    versions = {each.version for each in answers}
    if len(versions) > 1:
        raise InputError("the model got a new version meanwhile: name one with --version")
    asker.version = asker.version or next(iter(versions), None)
    if answers and answers[0].probabilities:
        _check_labels(rows, list(answers[0].probabilities))
    return found, None


def _check_labels(rows: Sequence[Row], names: Sequence[str]) -> None:
    for row in rows:
        if row.label is not None and row.label not in names:
            raise InputError(f"row {row.number}: the label is none of {', '.join(names)}")


def _version(explained: Explained) -> str:
    return next((each.version for each in explained.answers if each is not None), "unknown")


def _answered(row: Row, prediction: Prediction | None, explanation: Explanation | None) -> Answered:
    if explanation is None:
        return Answered(row, prediction)
    truncated = explanation.prediction.truncated
    return Answered(row, prediction, explanation, align(row.text, explanation.tokens, truncated))


def _measure_all(
    gathered: _Gathered, asker: Asker, everything: Sequence[Row], seed: int
) -> tuple[dict[str, Result], tuple[NotRun, ...], bool]:
    """The measures that ran, the others with their reasons, and whether somebody stopped them."""
    measures: dict[str, Result] = {}
    not_run = []
    stopped = gathered.no_explanations == INTERRUPTED
    for name, measure in _steps(gathered, asker, everything, seed).items():
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
    gathered: _Gathered, asker: Asker, everything: Sequence[Row], seed: int
) -> dict[str, Measure]:
    """The measures in the order of the report."""
    answered, card = gathered.answered, gathered.card
    return {
        "release": lambda: release(answered, gathered.again, card),
        "utility": lambda: utility(answered),
        "counterfactual": lambda: counterfactual(answered, everything, asker.predict, seed),
        "membership": lambda: membership(answered, seed),
        "lift": lambda: lift(answered, seed),
        "faithfulness": lambda: faithfulness(answered, asker.predict, seed),
        "certificate": lambda: certificate(answered, card),
    }


def _require_answers(name: str, gathered: _Gathered) -> None:
    if name in FROM_PREDICTIONS and gathered.no_predictions:
        raise NotRunError(gathered.no_predictions)
    if name in FROM_EXPLANATIONS and gathered.no_explanations and not gathered.explained:
        raise NotRunError(gathered.no_explanations)


def _partly_run(gathered: _Gathered, measures: Mapping[str, Result]) -> tuple[PartlyRun, ...]:
    """What lacks rows since explanations ended before the rows did."""
    if gathered.no_explanations is None:
        return ()
    return tuple(
        PartlyRun(name, gathered.explained, len(gathered.answered), gathered.no_explanations)
        for name in measures
        if name in ("release", *FROM_EXPLANATIONS)
    )
