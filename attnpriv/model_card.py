"""The model card: what a model is, what privacy it has, and what that does not cover.

``build_card`` makes it, for programs; ``card_text`` writes it out, for people. Both use the terms
of NIST SP 800-226 (Near, Darais, Lefkovitz and Howarth 2025).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from decimal import ROUND_CEILING, Context
from importlib.metadata import version
from typing import Any

from attnpriv.config import Accountant, ModelConfig, PrivacyConfig, TrainConfig, parse_trainable
from attnpriv.privacy.ledger import NoisedSteps, Selection
from attnpriv.rounding import round_up

TERMS = "NIST SP 800-226, https://doi.org/10.6028/NIST.SP.800-226"
GROUPS = (2, 5, 10)  # records of one person for which the card does the sum
LARGEST_FOR_PRV = 100.0  # ε above which a PRV figure that nobody asked for is not worth its time

CUT = (
    "the cut into training and held-out rows: with one row more, others would have been trained on"
)
NOT_COVERED = (
    "the number of training rows, which sets the sampling rate and is treated as public",
    CUT,
    "the fingerprint of the data: whoever knows all records but one can test guesses for the last",
    "the held-out accuracy on this card, an exact function of the held-out rows",
    "choices that people made after looking at this data or at earlier runs on it",
)
# A search cuts the rows by a rule that looks at each alone.
NOT_COVERED_BY_SEARCH = (
    *(what for what in NOT_COVERED if what != CUT),
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
    "and those of an answer depend on the text",
    "security_and_access_control": "the machine of the training and its working folder, which "
    "held the key of the steps to come, while the training went on",
}
LIMITS = {
    "data_collection_exposure": "the records as they were collected, stored, copied and backed up",
    "texts_sent_to_the_model": "a text sent for prediction is not a training record: nothing here "
    "hides it from the server, from its answer or from logs",
    "attention": "clipped logits and temperatures bound how much one token weighs; that is not "
    "differential privacy",
}
ATTACK = (
    "`attnpriv audit` attacks the model; an attack that succeeds beyond ε disproves this card, one "
    "that fails proves nothing."
)
PRETRAINED = (
    "the encoder came trained, on data of others: no statement here covers those, nor a training "
    "record that was among them"
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
    selection: Selection | None = None,
    score: float | None = None,
) -> dict[str, Any]:
    """The card as plain JSON values.

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
        selection: the search whose best run this is, if it is one; ``privacy`` and ``spent`` are
            then that run's, of 0 steps where the search made no run.
        score: the noised score of that run; None where the search made no run.
    """
    mechanism = None
    if privacy is not None and spent is not None:
        mechanism = _mechanism(privacy, spent, config, selection)
        if selection is not None:
            mechanism |= _search(selection, score)
    # Whoever knows the seed can take the noise off again: such a model is not a private one.
    seeded = privacy is not None and privacy.noise_seed is not None
    return {
        "name": name,
        "statement": _statement(mechanism, seeded),
        "warnings": _warnings(mechanism, seeded) + _untrained(spent),
        "terms": TERMS,
        "private": mechanism is not None and not seeded,
        "epsilon": mechanism["epsilon"] if mechanism else None,
        "delta": mechanism["delta"] if mechanism else None,
        "privacy": mechanism,
        "not_covered": list(not_covered),
        "limits": {
            **(LIMITS_OF_EPSILON if mechanism else {}),
            **LIMITS,
            **({} if model.encoder == "scratch" else {"pretrained_encoder": PRETRAINED}),
        },
        "encoder": model.encoder,
        "trainable": config.trainable,
        "training": _training(config, spent),
        "attention": {**asdict(model.attention), "temperatures": temperatures},
        "label_names": list(label_names),
        "data": data,
        "metrics": {"held_out": held_out, "covered_by_epsilon": False},
    }


def _mechanism(
    privacy: PrivacyConfig, spent: NoisedSteps, config: TrainConfig, selection: Selection | None
) -> dict[str, Any]:
    epsilon_prv: float | None = None
    if selection is None:
        epsilon = spent.epsilon(privacy.delta, privacy.accountant)
        epsilon_rdp = spent.epsilon(privacy.delta, "rdp")
        epsilon_prv = _epsilon_prv(spent, privacy.delta, privacy.accountant, epsilon_rdp)
    else:
        epsilon = epsilon_rdp = selection.epsilon(privacy.delta)
    return {
        "unit": "one training record (a text with its label)",
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
        "accountant_library": {"name": "opacus", "version": version("opacus")},
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


def _search(selection: Selection, score: float | None) -> dict[str, Any]:
    """What a search's card says otherwise, and besides: its noise is the best run's."""
    return {
        "unit": "one record (a text with its label), of the training or the validation rows",
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


def _epsilon_prv(
    spent: NoisedSteps, delta: float, accountant: Accountant, epsilon_rdp: float
) -> float | None:
    """The ε by PRV; None where it finds no number, or RDP was asked for and PRV has trouble."""
    if accountant == "rdp" and epsilon_rdp > LARGEST_FOR_PRV:
        return None
    try:
        epsilon = spent.epsilon(delta, "prv")
    except (RuntimeError, ValueError):
        return None
    # Where PRV finds no number, its ε is RDP's.
    return None if epsilon == epsilon_rdp else epsilon


def _largest_guess_accuracy(epsilon: float, delta: float) -> float:
    """How often a guess whether a record was used is right at most, where either is as likely.

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
    }


def _statement(mechanism: dict[str, Any] | None, seeded: bool) -> str:
    if mechanism is None:
        return (
            "TRAINED WITHOUT DIFFERENTIAL PRIVACY. Nothing bounds what this model gives away "
            "about its training records."
        )
    epsilon, delta = round_up(mechanism["epsilon"], 3), _digits_up(mechanism["delta"], 6)
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
        "cover the texts that are sent to the model, nor what stands under 'not covered'."
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


def card_text(card: dict[str, Any]) -> str:
    """The card as Markdown, for people.

    Every number in it is one of the card's, and bounds are rounded up. Names that users gave are
    escaped.

    Args:
        card: as ``build_card`` makes it.
    """
    parts = [f"# Model card: {_escaped(card['name'])}"]
    parts += [f"**{warning}**" for warning in card["warnings"]]
    if card["privacy"] is None:
        parts += _without_privacy(card)
    else:
        parts += _with_privacy(card, card["privacy"])
    parts += _utility(card)
    parts += ["## The model and its training", _table(("what", "value"), _model_rows(card))]
    return "\n\n".join(parts) + "\n"


def _with_privacy(card: dict[str, Any], privacy: dict[str, Any]) -> list[str]:
    parts = [
        _plain_words(card, privacy),
        card["statement"],
        f"The terms are those of {card['terms']}. Bounds are rounded up, σ and q to four digits; "
        "the exact numbers are in `model_card.json`.",
        _table(("parameter", "value", "what it says"), _privacy_rows(privacy, card["private"])),
        "## What this covers",
    ]
    if card["private"]:
        parts.append(
            "- The weights in this folder, and each noised step on the way to them.\n"
            "- Whatever is computed from them without the training records: answers to any number "
            "of requests, copies, further training on other data.\n"
            "- Whatever else an attacker knows, all other records included, as long as the key of "
            "the noise is secret."
        )
    else:
        parts.append(
            "Nothing, against whoever knows or guesses the seed. Do not hand this model out as a "
            "private one."
        )
    parts += [
        "## What it does not cover",
        "These looked at the records without noise:",
        _list(card["not_covered"]),
        "These are outside of what ε means:",
        _limits(card),
        "What ε and δ alone still give a person with several records:",
        _table(("records", "ε at most", "δ at most"), _group_rows(privacy)),
        "## Who must be trusted",
        "This is the central model of differential privacy. The curator, who holds the records and "
        "ran the training, saw them as they are; ε protects nobody from the curator. The curator's "
        "machine, its random generator and the software must have worked as they should. This card "
        "is not signed: it shows what was claimed, not that the training was run this way.",
        "## How to check it",
        _checks(privacy),
    ]
    return parts


def _without_privacy(card: dict[str, Any]) -> list[str]:
    return [
        "Nothing bounds what this model gives away about the "
        f"{card['data']['rows_train']} records of {_escaped(card['data']['name'])} that it was "
        "trained on. It may repeat or betray any of them to whoever can use it. Guard it as the "
        "records themselves are guarded.",
        "## What this covers",
        "Nothing: no gradient was clipped or noised.",
        "## What it does not cover",
        "All of the training. Apart from the weights, these depend on the records too:",
        _list(card["not_covered"]),
        "And it is no protection for:",
        _limits(card),
        "## Who must be trusted",
        "Everyone who ran the training, and everyone who gets the model or its answers.",
    ]


def _plain_words(card: dict[str, Any], privacy: dict[str, Any]) -> str:
    data = card["data"]
    text = f"This model was trained on {data['rows_train']} records of {_escaped(data['name'])}. "
    if not card["private"]:
        return text + (
            "Random noise was added on the way, but it was computed from a number that a user "
            "chose. The table shows what the same steps would have spent with a secret key."
        )
    return text + (
        "Random noise was added on the way, which limits what its weights can give away about any "
        "one of them. Suppose that someone knows all other records, and that a coin decided "
        "whether one certain record was used. From the weights, they guess which way the coin fell "
        f"with a chance of at most {round_up(100 * privacy['largest_guess_accuracy'], 1)} %; blind "
        "guessing is right half of the time. This is a limit for the worst case, not a forecast, "
        "and it is about the weights: what else gives something away stands under “What it does "
        "not cover”."
    )


def _privacy_rows(privacy: dict[str, Any], private: bool) -> list[tuple[str, str, str]]:
    library = privacy["accountant_library"]
    by = privacy["epsilon_by"].upper()
    asked = privacy["accountant"].upper()
    guarantee = "the guarantee" if private else "VOID where the seed is known"
    chosen = {
        "target": "the smallest, to a small tolerance, that keeps all steps within the budget",
        "user": "given by the user; the steps end where the budget does",
        "search": "about the smallest that keeps the whole search within the budget",
    }
    rule = {
        "flat": "longer gradients are shortened to C",
        "automatic": "each gradient is scaled to a norm near C, and never above",
    }
    return [
        ("unit of privacy", privacy["unit"], "what is protected"),
        ("neighbouring data", privacy["neighbours"], "the difference that is hard to see"),
        ("trust model", privacy["trust_model"], "who sees the records"),
        ("query model", privacy["query_model"], "what is given out"),
        (
            "**privacy loss ε**",
            f"**{round_up(privacy['epsilon'], 3)}**",
            f"{guarantee}; smaller is stronger; by {by}"
            + (
                ", for the whole search"
                if "selection" in privacy
                else ", as asked for"
                if by == asked
                else f", as {asked} found no number"
            ),
        ),
        ("δ", _digits_up(privacy["delta"], 6), "the additive slack in the guarantee"),
        (
            "privacy loss budget",
            _digits_up(privacy["target_epsilon"], 6),
            "the ε that was asked for, never exceeded",
        ),
        ("ε by PRV", _or_none(privacy["epsilon_prv"]), "numerical composition: tight"),
        ("ε by RDP", _or_none(privacy["epsilon_rdp"]), "Rényi composition: looser"),
        ("accountant", f"{asked}, {library['name']} {library['version']}", "computes ε"),
        ("mechanism", privacy["mechanism"], "where the noise goes in"),
        (
            "noise multiplier σ",
            f"{privacy['noise_multiplier']:.4g}",
            f"noise over C; {chosen[privacy['noise_multiplier_from']]}",
        ),
        (
            "clipping norm C",
            f"{privacy['max_grad_norm']:g}",
            "the sensitivity: one record moves a sum of gradients by at most C (L2 norm)",
        ),
        ("clipping rule", privacy["clipping"], rule[privacy["clipping"]]),
        ("clipping engine", privacy["clipping_engine"], "how it is computed; no part of ε"),
        ("sampling", privacy["sampler"], "how batches are drawn"),
        ("sampling rate q", f"{privacy['sample_rate']:.4g}", "a record's chance to join a batch"),
        ("expected batch size", str(privacy["expected_batch_size"]), "q times the records"),
        ("steps", str(privacy["steps"]), "how often noise was added, to empty batches too"),
        ("repeated steps", privacy["repeated_steps"], "what a crash costs"),
        ("random generator", privacy["random_generator"], "makes the batches and the noise"),
        *_selection_rows(privacy),
    ]


def _selection_rows(privacy: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    if "selection" not in privacy:
        return
    search = privacy["selection"]
    score = "none" if search["score"] is None else f"{search['score']:.1f}"
    yield (
        "number of runs",
        f"{search['distribution']}, {search['mean_runs']:g} expected",
        "drawn at random and kept secret; each run took a candidate at random",
    )
    yield (
        "candidates",
        str(search["candidates"]),
        "settings that a run could have; the σ, q, steps and C here are the best run's",
    )
    yield (
        "noise on a run's score",
        f"{search['score_noise']:.4g}",
        "standard deviation; the score is the number of correct validation rows",
    )
    yield "noised score", score, "of the best run; ε covers it"
    yield (
        "validation rows",
        f"{search['validation_share']:g} of all",
        f"by a hash of each text with the salt {_escaped(repr(search['salt']))}",
    )


def _group_rows(privacy: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    for group in privacy["groups"]:
        if group["delta"] < 1:
            bounds = round_up(group["epsilon"], 3), _digits_up(group["delta"], 2)
        else:
            bounds = "no bound", "no bound"
        yield str(group["records"]), *bounds


def _checks(privacy: dict[str, Any]) -> str:
    """Commands that compute ε anew; the first one prints the card's, to the last digit."""
    noise, rate = privacy["noise_multiplier"], privacy["sample_rate"]
    steps, delta = privacy["steps"], privacy["delta"]
    if "selection" in privacy:
        return (
            "Compute ε from what the ledger says of the search, in this folder and where "
            "`attnpriv` is installed; it prints the ε of the table, before rounding:\n\n```sh\n"
            'python -c "from attnpriv.privacy.ledger import Ledger; '
            f"print(Ledger('privacy_ledger.jsonl').selection().epsilon({delta!r}))\"\n```\n\n"
            "Other people's software does the same for one candidate (`RepeatAndSelectDpEvent` of "
            f"dp-accounting). {ATTACK}"
        )
    return (
        "Compute ε from σ, q, the steps and δ, where `attnpriv` is installed; it prints the ε of "
        "the table, before rounding:\n\n```sh\n"
        'python -c "from attnpriv.privacy import epsilon_spent; print(epsilon_spent('
        f"noise_multiplier={noise!r}, delta={delta!r}, sample_rate={rate!r}, steps={steps!r}, "
        f"accountant='{privacy['accountant']}'))\"\n```\n\n"
        "With other people's software (`pip install dp-accounting`), which should print about the "
        "ε by PRV:\n\n```sh\n"
        'python -c "import dp_accounting as dp; from dp_accounting.pld import PLDAccountant; '
        f"print(PLDAccountant().compose(dp.PoissonSampledDpEvent({rate!r}, "
        f'dp.GaussianDpEvent({noise!r})), {steps!r}).get_epsilon({delta!r}))"\n```\n\n'
        "`privacy_ledger.jsonl` holds the same numbers, and what else looked at the records. "
        f"{ATTACK}"
    )


def _utility(card: dict[str, Any]) -> list[str]:
    held_out = card["metrics"]["held_out"]
    private = card["privacy"] is not None
    return [
        "## Utility (not covered by ε)" if private else "## Utility",
        f"Accuracy {100 * held_out['accuracy']:.1f} % on {held_out['rows']} held-out records, "
        "counted exactly, without noise."
        + (
            " Clipping and noise can cost rare classes and small groups more than this average "
            "shows."
            if private
            else ""
        )
        + (
            " The search chose the model by its noised score on these very records, so that on "
            "others it may do a little worse."
            if private and card["privacy"].get("selection", {}).get("score") is not None
            else ""
        ),
    ]


def _model_rows(card: dict[str, Any]) -> list[tuple[str, str]]:
    training = card["training"]
    rates = f"{training['head_learning_rate']:g} for the head"
    if training["learning_rate"] is not None:
        rates += f", {training['learning_rate']:g} for the encoder"
    return [
        ("encoder", _escaped(card["encoder"])),
        ("trained part", card["trainable"]),
        ("classes", ", ".join(map(_escaped, card["label_names"]))),
        ("attention", _attention(card["attention"])),
        ("data", f"{_escaped(card['data']['name'])}, {card['data']['rows_train']} records"),
        ("steps", f"{training['steps']}, expected batch size {training['expected_batch_size']}"),
        ("optimizer", f"{training['optimizer']}, learning rate {rates}"),
        ("warm-up", f"{training['warmup']:g} of the steps"),
        ("decay of the learning rate", training["decay"]),
        ("moving average of the weights", f"decay {training['ema_decay']:g}"),
        ("precision", f"{training['precision']} in the encoder, float32 elsewhere"),
    ]


def _attention(attention: dict[str, Any]) -> str:
    clip, floor = attention["clip"], attention["temperature_floor"]
    logits = "not clipped" if clip is None else f"clipped to ±{clip:g} ({attention['clip_mode']})"
    learned = "" if floor is None else f" at first, learned, at least {floor:g}"
    return (
        f"{attention['score']} logits {logits}, temperature {attention['temperature']:g}{learned}"
    )


def _limits(card: dict[str, Any]) -> str:
    limits = card["limits"].items()
    return _list(f"{topic.replace('_', ' ').capitalize()}: {text}" for topic, text in limits)


def _or_none(epsilon: float | None) -> str:
    return "none" if epsilon is None else round_up(epsilon, 3)


def _digits_up(bound: float, digits: int) -> str:
    """The bound with at most so many significant digits, rounded towards infinity.

    >>> _digits_up(1e-5, 6), _digits_up(4.8765432e-06, 2)
    ('1e-05', '4.9e-06')
    """
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{float(context.create_decimal(repr(bound))):.{digits}g}"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _escaped(name: str) -> str:
    r"""A name on one line, with nothing in it that Markdown would act on.

    >>> print(_escaped("a|b <i>"))
    a\|b \<i\>
    """
    escaped = (f"\\{letter}" if letter in "\\`*[]<>|" else letter for letter in name)
    return " ".join("".join(escaped).split())
