"""What the model card promises; the audit does not check it, it can only refute it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attnpriv.report.blocks import Block, Box, Details, Grid, Heading, Items, Terms, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import Finding
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

# Beyond it a bound on ε says little: the third tier of Ponomareva et al. 2023, arXiv:2303.00654.
WEAK_EPSILON = 10.0
MECHANISM = {
    "mechanism": "mechanism",
    "unit": "unit of privacy",
    "neighbours": "neighbours",
    "sample_rate": "sampling rate q",
    "noise_multiplier": "noise multiplier σ",
    "max_grad_norm": "clipping norm C",
    "steps": "steps",
    "accountant": "accountant",
    "sampler": "sampling",
    "random_generator": "random numbers",
}


def finding(result: AuditResult) -> Finding:
    """Whether there is an ε, and whether it says much."""
    card = result.card
    if not card.get("private"):
        return Finding(
            "bad",
            "Not trained privately",
            "Nothing bounds what this model reveals about its training records.",
            "privacy",
            "Guard the model as closely as its training records, or train it again with an ε.",
        )
    guarantee = f"ε = {round_up(card['epsilon'], 2)} at δ = {card['delta']:g}"
    if card.get("warnings"):
        return Finding(
            "warn",
            f"Trained privately, with warnings: {guarantee}",
            "The model card restricts its own statement.",
            "privacy",
            "Read the warnings on the privacy card before you rely on this ε.",
        )
    if card["epsilon"] > WEAK_EPSILON:
        return Finding(
            "warn",
            f"Trained privately, but the bound is weak: {guarantee}",
            f"An ε above {WEAK_EPSILON:g} rules out little about any one record's influence.",
            "privacy",
            "Do not rely on this ε alone. Train again with a smaller one.",
        )
    return Finding(
        "good",
        f"Trained privately: {guarantee}",
        "The influence of any one training record on this model is bounded.",
        "privacy",
        "Keep the card with the model, and add up the ε of everything released on these records.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The card of each run."""
    yield Grid(tuple(Box(tuple(_card(run)), "card") for run in runs))


def _card(run: AuditResult) -> Iterator[Block]:
    card = run.card
    yield Heading(run.name)
    for warning in card.get("warnings") or ():
        yield Text(warning.upper(), "capitals")
    yield Text(card["statement"])
    yield Terms(tuple(_terms(run)))
    if card.get("not_covered"):
        yield Details("Not covered by ε", (Items(tuple(card["not_covered"])),), long=False)


def _terms(run: AuditResult) -> Iterator[tuple[str, str]]:
    card = run.card
    attention = card["attention"]
    if card.get("private"):
        yield "ε, δ", f"{round_up(card['epsilon'], 3)}, {card['delta']:g}"
        for name, words in MECHANISM.items():
            if name in card["privacy"]:
                yield words, _plain(card["privacy"][name])
    yield "encoder", card["encoder"]
    clipped = "logits not clipped"
    if attention["clip"] is not None:
        clipped = f"logits clipped to ±{attention['clip']:g} ({attention['clip_mode']})"
    floor = attention.get("temperature_floor")
    temperature = attention["temperature"] if floor is None else floor
    yield "attention", f"{clipped}, temperature {temperature:g}"
    if data := card.get("data"):
        rows = f", {data['rows_train']} records" if data.get("rows_train") else ""
        yield "trained on", f"{data['name']}{rows}"


def _plain(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.5g}" if number else str(value)


CHAPTER = Chapter(
    name="privacy",
    place=10,
    title="Privacy cards",
    body=body,
    asks=Question(
        "Is there a limit to what the training revealed?",
        "Read from the model card: differential privacy of the training.",
        finding,
    ),
    figures=(
        Figure(
            "card.epsilon",
            "ε of the training",
            "guarantee",
            higher_is_worse=True,
            main=True,
        ),
        Figure("card.delta", "δ of the training", "guarantee", digits=9, higher_is_worse=True),
    ),
)
