"""The attacks of an audit in the form that ``attnpriv audit --answers`` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attnpriv.leaks import ATTACKS, Attack, Leak
from attnpriv_client.audit.attack_results import (
    AttributesResult,
    ExplanationAttacksResult,
    ExposureResult,
    HiddenWordsResult,
    MembershipResult,
    ShadowAttacksResult,
)
from attnpriv_client.audit.results import NotRun, Result

MEASURE_OF: dict[Attack, str] = {
    "membership": "membership",
    "lira": "shadow_attacks",
    "lira_offline": "shadow_attacks",
    "rmia": "shadow_attacks",
    "rmia_offline": "shadow_attacks",
    "attention": "explanation_attacks",
    "attributions": "explanation_attacks",
    "together": "explanation_attacks",
    "exposure": "exposure",
    "hidden_words": "hidden_words",
    "attributes": "attributes",
}
AREA = "AUC"
WITHHELD = "the policy withholds these scores"


def leaks_of(measures: Mapping[str, Result], not_run: Sequence[NotRun]) -> tuple[Leak, ...]:
    """One entry for each attack, whether it ran or not."""
    found = {leak.attack: leak for result in measures.values() for leak in _leaks(result)}
    reasons = {each.measure: each.reason for each in not_run}
    return tuple(
        found.get(attack) or Leak(attack, not_run=reasons.get(MEASURE_OF[attack], WITHHELD))
        for attack in ATTACKS
    )


def _leaks(result: Result) -> Iterator[Leak]:
    match result:
        case MembershipResult():
            rows, verdict = result.members + result.non_members, result.judgement.verdict
            yield Leak("membership", AREA, rows, result.auc, 0.5, verdict)
        case ShadowAttacksResult():
            rows = result.members + result.non_members
            for name, one in result.attacks.items():
                yield Leak(name, AREA, rows, one.auc, 0.5, one.judgement.verdict)
        case ExplanationAttacksResult():
            rows = result.members + result.non_members
            for kind, attack in result.attacks.items():
                if kind != "drawn":
                    yield Leak(kind, AREA, rows, attack.auc, 0.5, attack.judgement.verdict)
        case ExposureResult():
            most = result.levels[-1]
            figure = f"exposure at {most.repetitions} repetitions, in bits"
            verdict, chance = result.judgement.verdict, result.by_chance
            yield Leak("exposure", figure, most.secrets, most.exposure, chance, verdict)
        case HiddenWordsResult():
            figure, verdict = "gain among the first guesses", result.judgement.verdict
            yield Leak("hidden_words", figure, result.words, result.top1_gain, 0.0, verdict)
        case AttributesResult():
            most_told = max(result.guesses, key=lambda guess: guess.gain.value or 0.0)
            figure = f"largest gain in right guesses, {most_told.source}"
            verdict = result.judgement.verdict
            yield Leak("attributes", figure, result.documents, most_told.gain, 0.0, verdict)
