"""The model card: what a model is, what privacy it has, and what that does not cover."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from attnpriv.config import ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.rounding import round_up

NOT_COVERED = (
    "the number of training rows, which sets the sampling rate and is treated as public",
    "the fingerprint of the data: whoever knows all records but one can test guesses for the last",
    "the held-out accuracy on this card, an exact function of the held-out rows",
    "choices that people made after looking at this data or at earlier runs on it",
)


def build_card(
    *,
    name: str,
    model: ModelConfig,
    temperatures: list[list[float]],
    label_names: tuple[str, ...],
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    spent: NoisedSteps | None,
    data: dict[str, Any],
    held_out: dict[str, Any],
    not_covered: tuple[str, ...],
    interrupted: bool,
) -> dict[str, Any]:
    """The card as plain JSON values.

    Args:
        name: of the run folder.
        model: its shape and hardening.
        temperatures: τ as trained, layer by layer, head by head.
        label_names: the classes.
        config: how it was fitted, batch size filled in.
        privacy: the target, or None.
        spent: the noised steps, or None without privacy.
        data: name, rows and split of the data.
        held_out: rows and accuracy.
        not_covered: what looked at the data without noise, ``NOT_COVERED`` and what the data adds.
        interrupted: whether training ended before its last step.
    """
    mechanism = None
    if privacy is not None and spent is not None:
        mechanism = _mechanism(privacy, spent, config)
    return {
        "name": name,
        "statement": _statement(mechanism),
        "warnings": _warnings(privacy, interrupted),
        # Whoever knows the seed can take the noise off again: such a model is not a private one.
        "private": privacy is not None and privacy.noise_seed is None,
        "epsilon": mechanism["epsilon"] if mechanism else None,
        "delta": privacy.delta if privacy else None,
        "privacy": mechanism,
        "not_covered": list(not_covered),
        "encoder": model.encoder,
        "trainable": config.trainable,
        "attention": {**asdict(model.attention), "temperatures": temperatures},
        "label_names": list(label_names),
        "data": data,
        "metrics": {"held_out": held_out, "covered_by_epsilon": False},
    }


def _mechanism(privacy: PrivacyConfig, spent: NoisedSteps, config: TrainConfig) -> dict[str, Any]:
    return {
        "unit": "one training record (a text with its label)",
        "neighbours": "add or remove one record",
        "mechanism": "Poisson-subsampled Gaussian on clipped per-record gradients (DP-Adam)",
        "noise_multiplier": spent.noise_multiplier,
        "max_grad_norm": spent.max_grad_norm,
        "sample_rate": spent.sample_rate,
        "expected_batch_size": config.batch_size,
        "steps": spent.steps,
        "delta": privacy.delta,
        "target_epsilon": privacy.epsilon,
        "accountant": privacy.accountant,
        "epsilon": spent.epsilon(privacy.delta, privacy.accountant),
        "epsilon_rdp": spent.epsilon(privacy.delta, "rdp"),
        "sampler": "Poisson, own draw for each record and step",
        "random_generator": "Mersenne twister, "
        + (
            "seeded by the operating system; not cryptographically secure"
            if privacy.noise_seed is None
            else "SEEDED BY THE USER"
        ),
    }


def _statement(mechanism: dict[str, Any] | None) -> str:
    if mechanism is None:
        return (
            "TRAINED WITHOUT DIFFERENTIAL PRIVACY. Nothing bounds what this model gives away "
            "about its training records."
        )
    epsilon = round_up(mechanism["epsilon"], 3)
    return (
        f"Trained with ({epsilon}, {mechanism['delta']:g})-differential privacy: "
        "adding or removing one training record changes the chance of any outcome by a factor of "
        f"at most e^{epsilon}, up to an additive {mechanism['delta']:g}. This "
        "covers the weights and what is computed from them and from public inputs. It does not "
        "cover the texts that are sent to the model, nor what stands under 'not covered'."
    )


def _warnings(privacy: PrivacyConfig | None, interrupted: bool) -> list[str]:
    warnings = []
    if privacy is None:
        warnings.append("TRAINED WITHOUT DIFFERENTIAL PRIVACY")
    elif privacy.noise_seed is not None:
        warnings.append("NOISE SEED CHOSEN BY THE USER: ε IS VOID AGAINST WHOEVER KNOWS IT")
    if interrupted:
        warnings.append("TRAINING WAS INTERRUPTED BEFORE ITS LAST STEP")
    return warnings
