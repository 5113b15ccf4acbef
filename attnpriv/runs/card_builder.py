"""Makes the model card of a finished training: what privacy it has, and what that does not cover.

In the terms of NIST SP 800-226 (Near, Darais, Lefkovitz and Howarth 2025).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from attnpriv import __version__
from attnpriv.attention.bound import Bound
from attnpriv.config import Kind, PrivacyConfig, TrainConfig, parse_trainable
from attnpriv.models.shapes import Shape
from attnpriv.privacy.ledger import NoisedSteps, Selection
from attnpriv.rounding import digits_up, round_up
from attnpriv.runs.card import ModelCard

TERMS = "NIST SP 800-226, https://doi.org/10.6028/NIST.SP.800-226"
GROUPS = (2, 5, 10)  # records of one person for which the card does the sum

# Where the rows were shuffled: a cut by content looks at each row alone.
CUT = (
    "the cut into training and held-out rows: with one row more, others would have been trained on"
)
NOT_COVERED = (
    "the number of training rows, which sets the sampling rate and is treated as public",
    "the fingerprint of the data: whoever knows all records but one can test guesses for the last",
    "the held-out accuracy on this card, an exact function of the held-out rows",
    "choices that people made after looking at this data or at earlier runs on it",
)
NOT_COVERED_BY_SEARCH = (
    *NOT_COVERED,
    "the number of runs and the time that the search took: ε holds against those who learn neither",
)

LIMITS_OF_EPSILON = {
    "group_privacy": "the unit is a record, not a person: a person with k records, or with one "
    "that stands in the data k times, gets about k·ε, and a δ that grows faster",
    "other_releases": "each further training, audit or statistic on the same records has a privacy "
    "loss of its own; the losses add up, and this card knows of none but its own",
    "facts_about_many": "what holds for many records is learned on purpose, and may be true of a "
    "person whether or not any record of theirs was used",
    "random_numbers": "the noise is pseudo-random: ε holds against those who neither know the key "
    "nor can tell the generator's output from chance",
    "floating_point": "the accountant assumes exact Gaussian noise; attacks on its rounding to "
    "float32 are not excluded",
    "side_channels": "the time, memory and power that the training took depended on the records, "
    "and those of an answer depend on the {kind}",
    "security_and_access_control": "the machine of the training and its working folder, which "
    "held the key of the steps to come, while the training went on",
}
LIMITS = {
    "data_collection_exposure": "the records as they were collected, stored, copied and backed up",
    "{kind}s_sent_to_the_model": "{a_kind} sent for prediction is not a training record: nothing "
    "here hides it from the server, from its answer or from logs",
    "attention": "clipped logits and temperatures bound how much one {position} weighs; that is "
    "not differential privacy",
}
A_RECORD: dict[Kind, str] = {"text": "a text", "image": "an image"}
POSITION: dict[Kind, str] = {"text": "token", "image": "patch"}
PRETRAINED = (
    "the encoder came trained, on data of others: no statement here covers those, nor a training "
    "record that was among them"
)


def bounded_from(bound: Bound) -> str:
    """Where a bounded encoder comes from, and that no record had a part in it."""
    made = bound.provenance
    names = ", ".join(dict.fromkeys(_texts_of(made)))
    start, begun = made.get("started_from"), ""
    if start is not None:
        begun = f", beginning with the weights of {start['name']} (SHA-256 {start['sha256']})"
    return (
        f"the encoder is a copy of {made['encoder']} (SHA-256 {made['encoder_sha256']}) that was "
        f"taught to work under the bound on its attention from public texts alone ({names})"
        f"{begun}: that read no training record, and ε does not cover those texts"
    )


def _texts_of(made: Mapping[str, Any]) -> Iterator[str]:
    """The names of the texts of a copy, and of the copies that it began with."""
    yield from (text["name"] for text in made["texts"])
    if "started_from" in made:
        yield from _texts_of(made["started_from"])


def build_card(
    *,
    name: str,
    model: Shape,
    temperatures: list[list[float]],
    label_names: tuple[str, ...],
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    spent: NoisedSteps | None,
    data: dict[str, Any],
    held_out: dict[str, Any],
    not_covered: tuple[str, ...],
    teacher: dict[str, Any] | None = None,
    bound: Bound | None = None,
    canaries: dict[str, int] | None = None,
    selection: Selection | None = None,
    score: float | None = None,
) -> ModelCard:
    """The card of a run.

    Args:
        name: of the run folder.
        model: its shape and hardening.
        temperatures: τ as trained, layer by layer, head by head.
        label_names: the classes.
        config: how it was fitted, steps and batch size filled in.
        privacy: the target, or None.
        spent: the noised steps, or None without privacy.
        data: name, rows and split of the data.
        held_out: rows and accuracy.
        not_covered: what looked at the data without noise, ``NOT_COVERED`` and what the data adds.
        teacher: name, attention and hashes of the run that the model was distilled from.
        bound: how the encoder is bounded, if it was taught under a bound.
        canaries: how many of each kind there are, if any were planted.
        selection: the search whose best run this is, if it is one; ``privacy`` and ``spent`` are
            then that run's, of 0 steps where the search made no run.
        score: the noised score of that run; None where the search made no run.
    """
    mechanism = None
    if privacy is not None and spent is not None:
        mechanism = _mechanism(privacy, spent, config, selection, model.kind)
        if selection is not None:
            mechanism |= _search(selection, score, model.kind)
    # Whoever knows the seed can take the noise off again: such a model is not a private one.
    seeded = privacy is not None and privacy.noise_seed is not None
    card = {
        "name": name,
        "statement": _statement(mechanism, seeded, model.kind),
        "warnings": _warnings(mechanism, seeded) + _untrained(spent),
        "terms": TERMS,
        "private": mechanism is not None and not seeded,
        "epsilon": mechanism["epsilon"] if mechanism else None,
        "delta": mechanism["delta"] if mechanism else None,
        "privacy": mechanism,
        "not_covered": list(not_covered),
        "limits": {
            **(_limits(LIMITS_OF_EPSILON, model.kind) if mechanism else {}),
            **_limits(LIMITS, model.kind),
            **({"pretrained_encoder": PRETRAINED} if model.pretrained else {}),
            **({} if bound is None else {"bounded_encoder": bounded_from(bound)}),
        },
        "encoder": model.encoder,
        "trainable": config.trainable,
        "training": _training(config, spent),
        "teacher": teacher,
        **({} if canaries is None else {"canaries": canaries}),
        "attention": {**asdict(model.attention), "temperatures": temperatures},
        "label_names": list(label_names),
        "data": data,
        "metrics": {"held_out": held_out, "covered_by_epsilon": False},
    }
    return ModelCard.from_json(card)


def _limits(limits: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """The same in the words for a kind of record."""
    words = {"kind": kind, "a_kind": A_RECORD[kind], "position": POSITION[kind]}
    return {topic.format(**words): text.format(**words) for topic, text in limits.items()}


def _mechanism(
    privacy: PrivacyConfig,
    spent: NoisedSteps,
    config: TrainConfig,
    selection: Selection | None,
    kind: Kind,
) -> dict[str, Any]:
    epsilon_prv: float | None = None
    if selection is None:
        epsilon = spent.epsilon(privacy.delta, privacy.accountant)
        epsilon_rdp = spent.epsilon(privacy.delta, "rdp")
        # Where no other bound is lower, the ε by PRV is Rényi's.
        epsilon_prv = spent.epsilon(privacy.delta, "prv")
        epsilon_prv = None if epsilon_prv == epsilon_rdp else epsilon_prv
    else:
        epsilon = epsilon_rdp = selection.epsilon(privacy.delta)
    return {
        "unit": f"one training record ({A_RECORD[kind]} with its label)",
        "neighbours": "add or remove one record",
        "trust_model": "central: a curator holds all records and adds the noise",
        "query_model": "one release: the weights, after the last step",
        "mechanism": "Poisson-subsampled Gaussian on clipped per-record gradients (DP-Adam)",
        "noise_multiplier": spent.noise_multiplier,
        "noise_multiplier_from": "target" if privacy.noise_multiplier is None else "user",
        "max_grad_norm": spent.max_grad_norm,
        "clipping": privacy.clipping,
        "clipping_engine": privacy.clipping_engine,
        "sample_rate": spent.sample_rate,
        "expected_batch_size": config.batch_size,
        "steps": spent.steps,
        "repeated_steps": "taken again after a crash, a step has the same batch and the same "
        "noise, and costs nothing more",
        "delta": privacy.delta,
        "target_epsilon": privacy.epsilon,
        "accountant": privacy.accountant,
        "accountant_library": {"name": "attnpriv", "version": __version__},
        "epsilon": epsilon,
        "epsilon_by": "rdp" if epsilon_prv is None else privacy.accountant,
        "epsilon_prv": epsilon_prv,
        "epsilon_rdp": epsilon_rdp,
        "largest_guess_accuracy": _largest_guess_accuracy(epsilon, privacy.delta),
        "groups": [
            {"records": k, "epsilon": k * epsilon, "delta": _group_delta(k, epsilon, privacy.delta)}
            for k in GROUPS
        ],
        "sampler": "Poisson, own draw for each record and step",
        "random_generator": "ChaCha20 keyed with 256 bits by the operating system, one key a step, "
        "derived forward only"
        if privacy.noise_seed is None
        else "ChaCha20, SEEDED BY THE USER",
    }


def _search(selection: Selection, score: float | None, kind: Kind) -> dict[str, Any]:
    """What the card of a search says differently or in addition; its noise is the best run's."""
    return {
        "unit": f"one record ({A_RECORD[kind]} with its label), of the training or the validation "
        "rows",
        "query_model": "one release: the best run's weights, settings and noised score",
        "mechanism": "best of a random number of runs (Papernot and Steinke 2021, "
        "arXiv:2110.03620), each of Poisson-subsampled Gaussian on clipped per-record gradients "
        "(DP-Adam)",
        "noise_multiplier_from": "search",
        "repeated_steps": "none: a search that is cut off releases nothing",
        "selection": {
            **asdict(selection),
            "candidates": len(selection.candidates),
            "score": score,
        },
    }


def _largest_guess_accuracy(epsilon: float, delta: float) -> float:
    """How often, at most, a guess whether a record was used is right, if both are equally likely.

    It is (e^ε + δ) / (e^ε + 1) (Kairouz, Oh and Viswanath 2015, arXiv:1311.0776, theorem 2.1).
    """
    right = 1 / (1 + math.exp(-epsilon))
    return right + delta * (1 - right)


def _group_delta(records: int, epsilon: float, delta: float) -> float:
    """The δ at which k records have k·ε: δ·Σ e^(iε) for i < k, but at most 1, which bounds nothing.

    By induction over the records, as in Vadhan 2017, The Complexity of Differential Privacy, lemma
    2.2.
    """
    if (records - 1) * epsilon > 700:  # e^709 is the largest float
        return 1.0
    return min(1.0, delta * sum(math.exp(i * epsilon) for i in range(records)))


def _training(config: TrainConfig, spent: NoisedSteps | None) -> dict[str, Any]:
    head_only = parse_trainable(config.trainable).kind == "head"
    return {
        "optimizer": "Adam",
        "steps": config.steps if spent is None else spent.steps,
        "expected_batch_size": config.batch_size,
        "head_learning_rate": config.head_learning_rate,
        "learning_rate": None if head_only else config.learning_rate,
        "warmup": config.warmup,
        "decay": config.decay,
        "ema_decay": config.ema_decay,
        "precision": config.precision,
        "augmentation": config.augmentation,
        "augmentation_multiplicity": config.multiplicity,
    }


def _statement(mechanism: dict[str, Any] | None, seeded: bool, kind: Kind) -> str:
    if mechanism is None:
        return (
            "TRAINED WITHOUT DIFFERENTIAL PRIVACY. Nothing bounds what this model gives away "
            "about its training records."
        )
    epsilon, delta = round_up(mechanism["epsilon"], 3), digits_up(mechanism["delta"], 6)
    if seeded:
        return (
            "NOT PRIVATE: the noise comes from a seed that a user chose, and whoever knows or "
            "guesses it can take the noise off again. Under a secret key the same steps would have "
            f"given ({epsilon}, {delta})-differential privacy for adding or removing one record."
        )
    record, release = "training record", "weights"
    if "selection" in mechanism:
        record, release = "training or validation record", "weights, the noised score"
    return (
        f"Trained with ({epsilon}, {delta})-differential privacy: "
        f"adding or removing one {record} changes the chance of any outcome by a factor of "
        f"at most e^{epsilon}, up to an additive {delta}. This "
        f"covers the {release} and what is computed from them and from public inputs. It does not "
        f"cover the {kind}s that are sent to the model, nor what stands under 'not covered'."
    )


def _warnings(mechanism: dict[str, Any] | None, seeded: bool) -> list[str]:
    if mechanism is None:
        return ["TRAINED WITHOUT DIFFERENTIAL PRIVACY"]
    if seeded:
        return ["NOISE SEED CHOSEN BY THE USER: ε IS VOID AGAINST WHOEVER KNOWS OR GUESSES IT"]
    return []


def _untrained(spent: NoisedSteps | None) -> list[str]:
    if spent is not None and spent.steps == 0:
        return ["UNTRAINED: THE SEARCH DREW A NUMBER OF RUNS, AND IT WAS 0"]
    return []
