"""What a run claims about its training records, and what its accountant lets an attack reach."""

from __future__ import annotations

from attnpriv.config import Accountant
from attnpriv.privacy.ledger import Ledger, NoisedSteps, Selection
from attnpriv.privacy.profile import profile_of, profile_of_steps
from attnpriv.runs.card import CardPrivacy, ModelCard
from attnpriv.runs.folder import LEDGER, Run
from attnpriv.verdicts import Claim, Profile, make_claim

RDP: Accountant = "rdp"
PRV: Accountant = "prv"


def claim_of(run: Run) -> Claim | None:
    """The claim of a run; None where its card does not call it private.

    The curve is that of the mechanism that the card and the ledger describe: its noise, its
    sampling rate and its steps; or of the whole search, where the model is the best of several
    runs. The pair that the card states is one of its pairs.

    Raises:
        InputError: the ledger cannot be read.
    """
    card = run.card
    if not card.private or card.privacy is None or card.epsilon is None or card.delta is None:
        return None
    basis, profile = _mechanism(card, card.privacy, Ledger(run.path / LEDGER).selection())
    pairs = sorted({*profile, (card.epsilon, card.delta)})
    return make_claim(card.epsilon, card.delta, basis, pairs)


def _mechanism(
    card: ModelCard, privacy: CardPrivacy, selection: Selection | None
) -> tuple[str, Profile]:
    if privacy.selection is not None:
        if selection is None:  # a ledger that somebody took away; ε and δ are left
            return "the model card's ε and δ", ()
        return "Rényi composition of the whole search", profile_of(selection.epsilon)
    steps = NoisedSteps(
        privacy.noise_multiplier, privacy.sample_rate, privacy.steps, privacy.max_grad_norm
    )
    accountant = PRV if privacy.accountant == PRV else RDP
    words = "the composed privacy loss" if accountant == PRV else "Rényi composition"
    basis = (
        f"{words} of {steps.steps} steps at q = {steps.sample_rate:.4g} and "
        f"σ = {steps.noise_multiplier:.4g}"
    )
    return basis, profile_of_steps(steps, accountant)
