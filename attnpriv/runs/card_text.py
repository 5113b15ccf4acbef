"""The model card as Markdown, for the people who must decide on it."""

from __future__ import annotations

from collections.abc import Iterable

from attnpriv.config import AttentionConfig
from attnpriv.rounding import digits_up, round_up
from attnpriv.runs.card import CardCanaries, CardPrivacy, CardTeacher, CardTraining, ModelCard

ATTACK = (
    "`attnpriv audit` attacks the model; an attack that succeeds beyond ε disproves this card, one "
    "that fails proves nothing."
)


def card_text(card: ModelCard) -> str:
    """The card as Markdown.

    Every number in it is one of the card's, and bounds are rounded up. Names that users gave are
    escaped.

    Args:
        card: as ``build_card`` makes it; those of earlier versions lack some of what is told.
    """
    parts = [f"# Model card: {_escaped(card.name)}"]
    parts += [f"**{warning}**" for warning in card.warnings]
    if card.privacy is None:
        parts += _without_privacy(card)
    else:
        parts += _with_privacy(card, card.privacy)
    parts += _utility(card)
    parts += ["## The model and its training", _table(("what", "value"), _model_rows(card))]
    return "\n\n".join(parts) + "\n"


def _with_privacy(card: ModelCard, privacy: CardPrivacy) -> list[str]:
    parts = [
        _plain_words(card, privacy),
        card.statement,
        f"The terms are those of {card.terms}. Bounds are rounded up, σ and q to four digits; "
        "the exact numbers are in `model_card.json`.",
        _table(("parameter", "value", "what it says"), _privacy_rows(privacy, card.private)),
        "## What this covers",
    ]
    if card.private:
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
        _list(card.not_covered),
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


def _without_privacy(card: ModelCard) -> list[str]:
    return [
        "Nothing bounds what this model gives away about the "
        f"{card.data.rows_train} records of {_escaped(card.data.name)} that it was "
        "trained on. It may repeat or betray any of them to whoever can use it. Guard it as the "
        "records themselves are guarded.",
        "## What this covers",
        "Nothing: no gradient was clipped or noised.",
        "## What it does not cover",
        "All of the training. Apart from the weights, these depend on the records too:",
        _list(card.not_covered),
        "And it is no protection for:",
        _limits(card),
        "## Who must be trusted",
        "Everyone who ran the training, and everyone who gets the model or its answers.",
    ]


def _plain_words(card: ModelCard, privacy: CardPrivacy) -> str:
    data = card.data
    text = f"This model was trained on {data.rows_train} records of {_escaped(data.name)}. "
    if not card.private:
        return text + (
            "Random noise was added on the way, but it was computed from a number that a user "
            "chose. The table shows what the same steps would have spent with a secret key."
        )
    return text + (
        "Random noise was added on the way, which limits what its weights can give away about any "
        "one of them. Suppose that someone knows all other records, and that a coin decided "
        "whether one certain record was used. From the weights, they guess which way the coin fell "
        f"with a chance of at most {round_up(100 * privacy.largest_guess_accuracy, 1)} %; blind "
        "guessing is right half of the time. This is a limit for the worst case, not a forecast, "
        "and it is about the weights: what else gives something away stands under “What it does "
        "not cover”."
    )


def _privacy_rows(privacy: CardPrivacy, private: bool) -> list[tuple[str, str, str]]:
    library = privacy.accountant_library
    by = privacy.epsilon_by.upper()
    asked = privacy.accountant.upper()
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
        ("unit of privacy", privacy.unit, "what is protected"),
        ("neighbouring data", privacy.neighbours, "the difference that is hard to see"),
        ("trust model", privacy.trust_model, "who sees the records"),
        ("query model", privacy.query_model, "what is given out"),
        (
            "**privacy loss ε**",
            f"**{round_up(privacy.epsilon, 3)}**",
            f"{guarantee}; smaller is stronger; by {by}"
            + (
                ", for the whole search"
                if privacy.selection is not None
                else ", as asked for"
                if by == asked
                else ", the lower of both"
            ),
        ),
        ("δ", digits_up(privacy.delta, 6), "the additive slack in the guarantee"),
        (
            "privacy loss budget",
            digits_up(privacy.target_epsilon, 6),
            "the ε that was asked for, never exceeded",
        ),
        ("ε by PRV", _or_none(privacy.epsilon_prv), "numerical composition: tight"),
        ("ε by RDP", _or_none(privacy.epsilon_rdp), "Rényi composition: looser"),
        ("accountant", f"{asked}, {library.name} {library.version}", "computes ε"),
        ("mechanism", privacy.mechanism, "where the noise goes in"),
        (
            "noise multiplier σ",
            f"{privacy.noise_multiplier:.4g}",
            f"noise over C; {chosen[privacy.noise_multiplier_from]}",
        ),
        (
            "clipping norm C",
            f"{privacy.max_grad_norm:g}",
            "the sensitivity: one record moves a sum of gradients by at most C (L2 norm)",
        ),
        ("clipping rule", privacy.clipping, rule[privacy.clipping]),
        ("clipping engine", privacy.clipping_engine, "how it is computed; no part of ε"),
        ("sampling", privacy.sampler, "how batches are drawn"),
        ("sampling rate q", f"{privacy.sample_rate:.4g}", "a record's chance to join a batch"),
        ("expected batch size", str(privacy.expected_batch_size), "q times the records"),
        ("steps", str(privacy.steps), "how often noise was added, to empty batches too"),
        ("repeated steps", privacy.repeated_steps, "what a crash costs"),
        ("random generator", privacy.random_generator, "makes the batches and the noise"),
        *_selection_rows(privacy),
    ]


def _selection_rows(privacy: CardPrivacy) -> Iterable[tuple[str, str, str]]:
    if privacy.selection is None:
        return
    search = privacy.selection
    score = "none" if search.score is None else f"{search.score:.1f}"
    yield (
        "number of runs",
        f"{search.distribution}, {search.mean_runs:g} expected",
        "drawn at random and kept secret; each run took a candidate at random",
    )
    yield (
        "candidates",
        str(search.candidates),
        "settings that a run could have; the σ, q, steps and C here are the best run's",
    )
    yield (
        "noise on a run's score",
        f"{search.score_noise:.4g}",
        "standard deviation; the score is the number of correct validation rows",
    )
    yield "noised score", score, "of the best run; ε covers it"
    yield (
        "validation rows",
        f"{search.validation_share:g} of all",
        f"by a hash of each text with the salt {_escaped(repr(search.salt))}",
    )


def _group_rows(privacy: CardPrivacy) -> Iterable[tuple[str, str, str]]:
    for group in privacy.groups:
        if group.delta < 1:
            bounds = round_up(group.epsilon, 3), digits_up(group.delta, 2)
        else:
            bounds = "no bound", "no bound"
        yield str(group.records), *bounds


def _checks(privacy: CardPrivacy) -> str:
    """Commands that compute ε anew; the first one prints the card's, to the last digit."""
    noise, rate = privacy.noise_multiplier, privacy.sample_rate
    steps, delta = privacy.steps, privacy.delta
    if privacy.selection is not None:
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
        f"accountant='{privacy.accountant}'))\"\n```\n\n"
        "With other people's software (`pip install dp-accounting`), which should print about the "
        "ε by PRV:\n\n```sh\n"
        'python -c "import dp_accounting as dp; from dp_accounting.pld import PLDAccountant; '
        f"print(PLDAccountant().compose(dp.PoissonSampledDpEvent({rate!r}, "
        f'dp.GaussianDpEvent({noise!r})), {steps!r}).get_epsilon({delta!r}))"\n```\n\n'
        "`privacy_ledger.jsonl` holds the same numbers, and what else looked at the records. "
        f"{ATTACK}"
    )


def _utility(card: ModelCard) -> list[str]:
    held_out, privacy = card.metrics.held_out, card.privacy
    text = (
        f"Accuracy {100 * held_out.accuracy:.1f} % on {held_out.rows} held-out records, "
        "counted exactly, without noise."
    )
    if privacy is None:
        return ["## Utility", text]
    text += (
        " Clipping and noise can cost rare classes and small groups more than this average shows."
    )
    if privacy.selection is not None and privacy.selection.score is not None:
        text += (
            " The search chose the model by its noised score on these very records, so that on "
            "others it may do a little worse."
        )
    return ["## Utility (not covered by ε)", text]


def _model_rows(card: ModelCard) -> list[tuple[str, str]]:
    return [
        ("encoder", _escaped(card.encoder)),
        ("trained part", card.trainable),
        ("classes", ", ".join(map(_escaped, card.label_names))),
        ("attention", _attention(card.attention)),
        ("data", f"{_escaped(card.data.name)}, {card.data.rows_train} records"),
        *_training_rows(card.training),
        *_teacher_row(card.teacher),
        *_canaries_row(card.canaries),
    ]


def _training_rows(training: CardTraining | None) -> Iterable[tuple[str, str]]:
    if training is None:
        return
    rates = f"{training.head_learning_rate:g} for the head"
    if training.learning_rate is not None:
        rates += f", {training.learning_rate:g} for the encoder"
    yield "steps", f"{training.steps}, expected batch size {training.expected_batch_size}"
    yield "optimizer", f"{training.optimizer}, learning rate {rates}"
    yield "warm-up", f"{training.warmup:g} of the steps"
    yield "decay of the learning rate", training.decay
    yield "moving average of the weights", f"decay {training.ema_decay:g}"
    yield "precision", f"{training.precision} in the encoder, float32 elsewhere"
    if training.augmentation is not None:
        copies = training.augmentation_multiplicity - 1
        yield (
            "augmentation",
            f"{training.augmentation}, {copies} copies of each record; the mean of its gradient "
            "and theirs counted as the record's",
        )


def _teacher_row(teacher: CardTeacher | None) -> Iterable[tuple[str, str]]:
    if teacher is not None:
        name = _escaped(teacher.name)
        yield (
            "distilled from",
            f"{name}, trained on the same rows: {_attention(teacher.attention)}",
        )


def _canaries_row(canaries: CardCanaries | None) -> Iterable[tuple[str, str]]:
    if canaries is not None:
        yield (
            "canaries",
            f"{canaries.gradients} made-up gradients and {canaries.texts} made-up texts with "
            "random classes, each trained on if a fair coin said so, to audit the training by "
            "them; they change no record's ε, and the texts may cost some accuracy",
        )


def _attention(attention: AttentionConfig) -> str:
    clip, mode, floor = attention.clip, attention.clip_mode, attention.temperature_floor
    if clip is None:
        logits = "not clipped"
    elif mode == "relative":
        logits = f"raised to within {2 * clip:g} of the largest of their row"
    else:
        logits = f"clipped to ±{clip:g} ({mode})"
    learned = "" if floor is None else f" at first, learned, at least {floor:g}"
    return f"{attention.score} logits {logits}, temperature {attention.temperature:g}{learned}"


def _limits(card: ModelCard) -> str:
    limits = card.limits.items()
    return _list(f"{topic.replace('_', ' ').capitalize()}: {text}" for topic, text in limits)


def _or_none(epsilon: float | None) -> str:
    return "none" if epsilon is None else round_up(epsilon, 3)


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
