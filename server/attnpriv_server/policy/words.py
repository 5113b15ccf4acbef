"""What a policy means, in plain words: who gets what, from which text, and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attnpriv_server.policy.rules import (
    EVERYONE,
    FOR_EVER,
    ExplainRules,
    Label,
    Policies,
    PredictRules,
    Read,
    Reads,
    Role,
    Rounded,
    Rules,
    Scores,
    SummarizeRules,
)

# What a policy can show, in words.
FIELDS = {
    "tokens": "the words",
    "label": "the label",
    "probabilities": "the probability of every class",
    "certified_substitutions": "how many replaced tokens cannot change the label",
    "attention": "attention of the last layer",
    "layer_attention": "attention of every layer",
    "head_attention": "attention of every head",
    "rollout": "attention rollout",
    "integrated_gradients": "integrated gradients",
    "key": "one drawn token",
}
TEXTS: Mapping[Reads, str] = {
    "full": "whole text",
    "redacted": "redacted text",
    "substituted": "redacted text with public values in it",
}
FIGURES = {
    "labels": "how many texts have each label",
    "attention": "mean attention on each type of personal data and on words",
    "attribution": "mean attribution to them",
}


def explained(policies: Policies) -> list[str]:
    """Lines that say what each role is answered."""
    lines = [line for name, role in policies.roles.items() for line in _role(name, role)]
    if EVERYONE not in policies.roles:
        lines += ["Everybody else", "  is answered nothing: there is no role everyone."]
    return lines


def free_of_hidden_values(rules: PredictRules | ExplainRules) -> bool:
    """Whether an answer by these rules is computed without the hidden values."""
    return "full" not in rules.reads


def _role(name: str, role: Role) -> Iterator[str]:
    who = ", ".join(role.principals) or "whoever no other role lists"
    yield f"Role {name}: {who}"
    yield from _rules("", role)
    for model, rules in role.models.items():
        yield from _rules(f" on the model {model}", rules)
    if role.restrict_non_private_models:
        yield "  A model that was trained without privacy answers with labels alone."
    else:
        yield (
            "  Caution: a model that was trained without privacy answers in the same way, which "
            "helps whoever tests whether a record was in its training data."
        )
    if role.budget is not None:
        per = "for ever" if role.budget.period == FOR_EVER else f"in {role.budget.period}"
        yield f"  Each principal may spend ε = {role.budget.epsilon} on each model {per}."
        if role.summarizes:
            yield "  Summaries are counted apart, against as much again."


def _rules(where: str, rules: Rules) -> Iterator[str]:
    for method, answer in (("Predict", rules.predict), ("Explain", rules.explain)):
        if answer is None:
            yield f"  {method}{where}: denied."
            continue
        yield f"  {method}{where}: {protection(answer)}"
        for name, words in FIELDS.items():
            if hasattr(answer, name):
                yield f"    {words}: {field(name, getattr(answer, name))}"
    yield from _summaries(where, rules.summarize)


def _summaries(where: str, rules: SummarizeRules | None) -> Iterator[str]:
    if rules is None:
        yield f"  Summarize{where}: denied."
        return
    yield f"  Summarize{where}: {noise_on(rules)}"
    for name, words in FIGURES.items():
        yield f"    {words}: {field(name, getattr(rules, name))}"


def noise_on(rules: SummarizeRules) -> str:
    """What a summary by these rules gives away of one text."""
    return (
        f"many texts of the caller at once, all numbers with noise but how many texts there are. "
        f"Two lists that differ in one text are told apart by at most ε = {rules.epsilon} for "
        f"each summary."
    )


def protection(answer: PredictRules | ExplainRules) -> str:
    """What an answer by these rules depends on."""
    if answer.epsilon is not None:
        return (
            f"computed from the redacted text, but for what is drawn. Two texts that differ in "
            f"hidden values alone are told apart by at most ε = {answer.epsilon} for each text."
        )
    if free_of_hidden_values(answer):
        stand_ins = ", with public values in it" if "substituted" in answer.reads else ""
        return (
            f"computed from the redacted text alone{stand_ins}. Hidden values change nothing in it."
        )
    if isinstance(answer, ExplainRules) and answer.tokens.read == "redacted":
        return (
            "shows placeholders, but depends on the hidden values: whoever can run the model can "
            "test guesses of them."
        )
    return "depends on the whole text, sensitive parts included."


def field(name: str, rule: Read | None) -> str:
    """How much of a field is shown, and what it is computed from."""
    if rule is None:
        return "denied"
    if name == "key":
        return f"by the attention of the last layer, at ε = {getattr(rule, 'epsilon', None)}"
    if name == "tokens":
        return "with placeholders" if rule.read == "redacted" else "in full, with their places"
    if isinstance(rule, Label) and rule.epsilon is not None:
        return f"drawn, at ε = {rule.epsilon}"
    parts = [f"from the {TEXTS[rule.read]}"]
    if isinstance(rule, Rounded) and rule.digits is not None:
        parts.append(f"rounded to {rule.digits} decimal places")
    if isinstance(rule, Scores) and rule.top is not None:
        parts.append(f"for the {rule.top} largest alone")
    return ", ".join(parts)
