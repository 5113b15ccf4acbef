"""Audits for tests of reports: one that is made up, and a real one of tiny models."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from attnpriv.audit.comparison import Comparison, PairedDifference
from attnpriv.audit.coverage import DetectorCoverage
from attnpriv.audit.examples import Piece
from attnpriv.audit.faithfulness import ATTENTION, GRADIENTS, LEAVE_ONE_OUT, PERCENTS, RANDOM
from attnpriv.audit.leakage.explanation_attacks import NAMES as EXPLAINED
from attnpriv.audit.leakage.inversion import NAMES as READ
from attnpriv.audit.lift import Lift
from attnpriv.audit.matched import TokenLift
from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import Audit
from attnpriv.audit.robustness import EDITS, LENGTHS, LEVELS, QUANTILES, SCALES, TEXT_EDITS
from attnpriv.audit.rollout import head_names, layer_names
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.config import AttentionConfig, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.data.records import Span
from attnpriv.estimates import Control, Estimate
from attnpriv.leaks import Leak
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.report.provenance import Machine, Provenance, RunFiles
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_builder import NOT_COVERED, build_card
from attnpriv.runs.folder import load_run
from attnpriv.sensitive import TypeQuality
from attnpriv.shadow_answers import NAMES
from attnpriv.verdicts import Judgement, Placed, make_claim

LAYERS, HEADS = 2, 3
LABELS = ("bill", "refund")
TYPES = ("EMAIL", "USER NAME")
KNOWN = {
    "valid": True,
    "not_reported": None,
}
NOTHING = Judgement("NOT FOUND", None, None, (Placed("AUC", 0.45, 0.55, 0.5, None, "NOT FOUND"),))
CLAIM = make_claim(5.0, 1e-5, "17 steps", [(0.0, 0.3), (1.0, 0.05), (5.0, 1e-5)])
BESIDE = Judgement(
    "WITHIN THE CLAIM",
    CLAIM.auc,
    CLAIM,
    (Placed("AUC", 0.55, 0.65, 0.5, CLAIM.auc, "WITHIN THE CLAIM"),),
)
MEASURES = ("attention.overall.lift", "utility.accuracy", "counterfactual.overall.excess")


class _Maker:
    """Fills any result with numbers that could be: intervals hold their value, controls pass."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def make(self, of: Any, **given: Any) -> Any:
        """A value of the type; of a dataclass, with the given fields."""
        if of is Estimate:
            value = self.make(float)
            return Estimate(value, value - 0.1, value + 0.1)
        if of is Control:
            return Control("the control wins", self.make(float), True)
        if of is Lift:
            return Lift(self.make(Estimate), 0.9, 1.1, 0.01, 0.02, 0.03)
        if dataclasses.is_dataclass(of):
            fields = {**KNOWN, **given}
            return of(
                **{
                    name: fields[name] if name in fields else self.make(type_)
                    for name, type_ in get_type_hints(of).items()
                }
            )
        if get_origin(of) in (UnionType, Union):
            return self.make(next(each for each in get_args(of) if each is not NoneType))
        if get_origin(of) is tuple:
            arguments = get_args(of)
            if arguments[-1] is Ellipsis:
                return tuple(self.make(arguments[0]) for _ in range(3))
            return tuple(self.make(each) for each in arguments)
        if get_origin(of) is dict:
            return {}
        if get_origin(of) is Literal:
            return get_args(of)[0]
        return self._plain(of)

    def _plain(self, of: Any) -> Any:
        if of is float:
            return round(float(self.rng.uniform(0.2, 0.8)), 6)
        if of is int:
            return int(self.rng.integers(60, 400))
        return {str: "text", bool: False}[of]

    def named(self, names: Any) -> tuple[TokenLift, ...]:
        return tuple(self.make(TokenLift, name=name) for name in names)

    def each(self, entries: tuple[Any, ...], **fields: Any) -> tuple[Any, ...]:
        """The entries with the n-th value of each field in the n-th of as many as there are."""
        count = len(next(iter(fields.values())))
        return tuple(
            replace(entries[i % len(entries)], **{name: field[i] for name, field in fields.items()})
            for i in range(count)
        )


def make_card(name: str, attention: AttentionConfig, privacy: PrivacyConfig | None) -> ModelCard:
    """A card as training writes it, of steps that nobody took."""
    shape = {"vocab_size": 101, "dim": 6, "hidden_dim": 7, "max_length": 64, "num_labels": 2}
    spent = None if privacy is None else NoisedSteps(1.6, 0.25, 17, privacy.max_grad_norm)
    return build_card(
        name=name,
        model=ModelConfig(
            encoder="scratch", attention=attention, layers=LAYERS, heads=HEADS, **shape
        ),
        temperatures=[[attention.temperature] * HEADS] * LAYERS,
        label_names=LABELS,
        config=TrainConfig(steps=17, batch_size=60),
        privacy=privacy,
        spent=spent,
        data={
            "name": "tickets",
            "rows_train": 240,
            "fingerprint": "ab" * 32,
            "split": {"train_size": 240, "seed": 0},
        },
        held_out={"rows": 60, "accuracy": 0.75},
        not_covered=NOT_COVERED,
    )


def make_result(
    name: str, seed: int, attention: AttentionConfig, privacy: PrivacyConfig | None
) -> AuditResult:
    maker, card = _Maker(seed), make_card(name, attention, privacy)
    result: AuditResult = maker.make(
        AuditResult,
        name=name,
        card=card.as_written,
        data_name="tickets",
    )
    utility = result.utility
    classes = maker.each(utility.classes, label=LABELS, support=(60, 90))
    grid = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    layers, heads = zip(*grid, strict=True)
    by_layer = maker.named(layer_names(LAYERS))
    measured = result.attention
    return replace(
        result,
        utility=replace(utility, n=150, classes=classes, confusion=((50, 10), (20, 70))),
        attention=replace(
            measured,
            heads=maker.each(measured.heads, layer=layers, head=heads),
            layers=by_layer,
            entity_types=maker.named(TYPES),
            labels=maker.named(LABELS),
            certificate=_certificate(maker, measured.certificate, attention),
        ),
        flow=replace(
            result.flow,
            layers=maker.named(layer_names(LAYERS)),
            heads=maker.named(head_names(LAYERS, HEADS)),
        ),
        conductance=replace(
            result.conductance, layers=maker.named(layer_names(LAYERS)), shares=(0.25, 0.5)
        ),
        faithfulness=_faithfulness(maker, result.faithfulness),
        sensitivity=replace(
            result.sensitivity,
            explanations=maker.each(
                result.sensitivity.explanations,
                explanation=("attention", "integrated_gradients", "embedding"),
            ),
        ),
        counterfactual=replace(
            result.counterfactual,
            overall=replace(result.counterfactual.overall, entity_type="ALL"),
            types=maker.each(result.counterfactual.types, entity_type=TYPES),
        ),
        memorisation=replace(result.memorisation, judgement=NOTHING),
        exposure=replace(result.exposure, judgement=BESIDE if privacy else NOTHING),
        membership=_scored(maker, result.membership, BESIDE if privacy else NOTHING),
        shadow_attacks=_shadow_attacks(
            maker, result.shadow_attacks, BESIDE if privacy else NOTHING
        ),
        canaries=replace(result.canaries, judgement=BESIDE if privacy else NOTHING),
        explanation_attacks=_explanation_attacks(
            maker, result.explanation_attacks, BESIDE if privacy else NOTHING
        ),
        inversion=_inversion(maker, result.inversion),
        served=replace(result.served, verdict="NOT FOUND", leaks=_leaks(maker)),
        robustness=replace(
            result.robustness,
            radii=maker.each(
                result.robustness.radii, scale=SCALES, radius=(0.1, 0.2, 0.5)
            ),
            least=replace(
                result.robustness.least, shares=QUANTILES, scales=(0.01, 0.02, 0.04, None, None)
            ),
        ),
        pixel_attacks=replace(
            result.pixel_attacks,
            linf=maker.each(result.pixel_attacks.linf, scale=LEVELS),
            l2=maker.each(result.pixel_attacks.l2, scale=LENGTHS),
        ),
        attention_attacks=replace(
            result.attention_attacks,
            radii=maker.each(result.attention_attacks.radii, scale=SCALES),
        ),
        text_attacks=replace(
            result.text_attacks,
            curve=maker.each(result.text_attacks.curve, edits=TEXT_EDITS),
            tokens=maker.each(result.text_attacks.tokens, edits=EDITS),
        ),
        certified=replace(
            result.certified,
            shares=maker.each(result.certified.shares, edits=EDITS),
            of_right=maker.each(result.certified.of_right, edits=EDITS),
        ),
        examples=tuple(replace(e, label="bill", predicted="refund", pieces=_pieces(maker))
                       for e in result.examples[:2]),
    )  # fmt: skip


def _certificate(maker: _Maker, certificate: Any, attention: AttentionConfig) -> Any:
    bounded = {"largest_weight_bound": 0.9, "row_lift_bound": 4.1, "holds": True}
    if attention.clip is None:
        bounded = {"largest_weight_bound": None, "row_lift_bound": None, "holds": None,
                   "weight_ratio": None, "mass_ratio": None}  # fmt: skip
    return replace(
        certificate, logit_bound=attention.clip, temperature=attention.temperature, **bounded
    )


def _faithfulness(maker: _Maker, result: Any) -> Any:
    curves = [tuple(maker.make(Estimate) for _ in PERCENTS) for _ in range(8)]
    rankings = maker.each(
        result.rankings,
        ranking=(ATTENTION, LEAVE_ONE_OUT, GRADIENTS, RANDOM),
        comprehensiveness=curves[:4],
        sufficiency=curves[4:],
    )
    return replace(result, percents=PERCENTS, rankings=rankings)


def _scored(maker: _Maker, result: Any, judgement: Judgement) -> Any:
    return replace(
        result,
        tpr=maker.each(result.tpr, fpr=(0.01, 0.001)),
        roc=((0.0, 0.0), (0.01, 0.05), (0.3, 0.4), (1.0, 1.0)),
        judgement=judgement,
    )


def _leaks(maker: _Maker) -> tuple[Leak, ...]:
    found = {"verdict": "NOT FOUND", "not_run": None}
    return tuple(maker.make(Leak, attack=attack, **found) for attack in ("membership", "attention"))


def _shadow_attacks(maker: _Maker, result: Any, judgement: Judgement) -> Any:
    attacks = {name: _scored(maker, getattr(result, name), judgement) for name in ("loss", *NAMES)}
    return replace(result, judgement=judgement, **attacks)


def _explanation_attacks(maker: _Maker, result: Any, judgement: Judgement) -> Any:
    names = ("loss", "texts", *EXPLAINED)
    attacks = {name: _scored(maker, getattr(result, name), judgement) for name in names}
    return replace(result, judgement=judgement, **attacks)


def _inversion(maker: _Maker, result: Any) -> Any:
    names = (*READ, "gradients", "noised_gradients")
    attacks = {name: replace(getattr(result, name), judgement=NOTHING) for name in names}
    attributes = replace(
        result.attributes,
        judgement=NOTHING,
        guesses=maker.each(
            tuple(replace(each, judgement=NOTHING) for each in result.attributes.guesses),
            source=READ,
            entity_type=(TYPES[0],) * len(READ),
        ),
    )
    return replace(result, judgement=NOTHING, attributes=attributes, **attacks)


def _pieces(maker: _Maker) -> tuple[Piece, ...]:
    words = (("[CLS]", None), (None, "hiddenword"), ("[USER_NAME]", None), ("[SEP]", None))
    return tuple(
        Piece(placeholder, word, False, maker.make(float), maker.make(float) - 0.5)
        for placeholder, word in words
    )


def _comparison(run: str, against: str, seed: int) -> Comparison:
    maker = _Maker(seed)
    differences = tuple(maker.make(PairedDifference, measure=measure) for measure in MEASURES)
    return Comparison(run, against, maker.make(Estimate), differences, None)


@pytest.fixture(scope="session")
def synthetic() -> Audit:
    """Four runs as a study has them, each other one compared with the first; all made up."""
    hardened = AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm")
    private = PrivacyConfig(epsilon=5.0, noise_multiplier=1.6, accountant="rdp")
    settings = {
        "plain": (AttentionConfig(), None),
        "hardened": (hardened, None),
        "private": (AttentionConfig(), private),
        "private-hardened": (hardened, private),
    }
    results = tuple(make_result(n, i, *settings[n]) for i, n in enumerate(settings))
    quality = tuple(TypeQuality(name, 50, 40, 45, 42, 39) for name in TYPES)
    return Audit(
        results=results,
        comparisons=tuple(_comparison(r.name, "plain", i) for i, r in enumerate(results[1:])),
        coverage=DetectorCoverage("gold spans", TYPES, ("PERSON",), quality),
        options=dataclasses.asdict(AuditOptions()),
    )


@pytest.fixture(scope="session")
def origin(synthetic: Audit) -> Provenance:
    """Of the made-up audit, as made up as it."""
    return Provenance(
        attnpriv="0.1.0",
        code_sha256="c" * 64,
        python="3.11.0",
        libraries={"numpy": "2.0.0", "torch": "2.13.0"},
        machine=Machine("Linux", "x86_64", "AVX2", 1),
        runs=tuple(RunFiles(r.name, {"model.safetensors": "d" * 64}) for r in synthetic.results),
        data="tickets",
        data_rows=300,
        data_sha256="e" * 64,
        spans_sha256="f" * 64,
    )


@pytest.fixture(scope="session")
def small() -> AuditOptions:
    """Everything is measured, coarsely."""
    return AuditOptions(
        documents=40, members=40, ig_documents=4, ig_steps=4, faithfulness_documents=3,
        sensitivity_documents=2, counterfactual_documents=6, memorisation_documents=6,
        pgd_documents=4, text_attack_documents=2, permutations=30, resamples=30,
    )  # fmt: skip


@pytest.fixture(scope="session")
def real_audit(tiny_run: Path, private_run: Path, tickets: Dataset, small: AuditOptions) -> Audit:
    """Tiny models on the data that they were trained on."""
    return audit_runs([load_run(tiny_run), load_run(private_run)], tickets, None, small)


@pytest.fixture(scope="session")
def planted(tickets: Dataset) -> Dataset:
    """Tickets in which every text carries a marked word and a marked piece of personal data."""
    texts = tuple(f"zebracanary canaryquagga {text}" for text in tickets.texts)
    spans = ((Span(12, 24, "USER NAME"),),) * len(texts)
    return replace(tickets, texts=texts, spans=spans)


@pytest.fixture(scope="session")
def planted_audit(tiny_run: Path, planted: Dataset, small: AuditOptions) -> Audit:
    return audit_runs([load_run(tiny_run)], planted, None, small)
