"""Policy files: what they may say, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.access import names_in
from attnpriv_server.policy import (
    EVERYONE,
    SAFE,
    ExplainRules,
    Policies,
    PredictRules,
    SummarizeRules,
    load_policies,
    read_policies,
)
from attnpriv_server.policy.files import Switches, watched_policies
from attnpriv_server.policy.words import explained

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
DESK = """
[roles.everyone]
predict = { label = { read = "redacted" } }

[roles.desk]
principals = ["ann", "bob"]
predict = { label = { read = "full" }, probabilities = { read = "full", digits = 2 } }

[roles.desk.explain]
tokens = { read = "redacted" }
label = { read = "redacted" }
attention = { read = "redacted", top = 3, digits = 3 }
rollout = "deny"

[roles.desk.models.mail]
predict = { label = { read = "full" } }

[roles.research]
principals = ["eve"]
predict = { label = { read = "full", epsilon = 0.5 } }
explain = { tokens = { read = "redacted" }, key = { epsilon = 1 } }
summarize = { epsilon = 2, labels = { read = "full" }, attention = { read = "redacted" } }
budget = { epsilon = 10, period = "30 days" }
restrict_non_private_models = false
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_without_a_file_predictions_are_full_and_explanations_redacted() -> None:
    role = Policies().of("anybody")

    assert role == SAFE
    assert role.restrict_non_private_models
    assert role.predict.reads == {"full"}
    assert role.explain.reads == {"redacted"}
    assert not role.draws


def test_a_principal_has_the_rules_of_its_own_role() -> None:
    policies = read_policies(DESK.encode())

    assert policies.of("ann") == policies.of("bob") == policies.roles["desk"]
    assert policies.of("Ann") == policies.roles[EVERYONE]
    assert policies.of("ann").predict.probabilities.digits == 2
    assert policies.of("ann").explain.attention.top == 3
    assert policies.of("eve").predict.epsilon == Decimal("0.5")
    assert policies.of("eve").budget.seconds == 30 * 86400
    assert [name for name, role in policies.roles.items() if role.draws] == ["research"]


def test_what_a_role_does_not_name_is_denied() -> None:
    policies = read_policies(DESK.encode())

    assert policies.of("ann").explain.integrated_gradients is None
    assert policies.of("ann").explain.rollout is None
    assert policies.of("nobody").explain is None


def test_a_model_of_its_own_has_only_the_rules_that_are_given_for_it() -> None:
    desk = read_policies(DESK.encode()).of("ann")

    assert desk.of_model("mail").predict.probabilities is None
    assert desk.of_model("mail").explain is None
    assert desk.of_model("other").explain is not None


def test_who_is_in_no_role_is_answered_nothing() -> None:
    content = DESK.replace("[roles.everyone]", "[roles.other]\nprincipals = ['zoe']")
    role = read_policies(content.encode()).of("nobody")

    assert role.predict is None
    assert role.explain is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digits = 2", "digits = 0", "roles.desk.predict.probabilities.digits: "),
        ("digits = 2", "digit = 2", "roles.desk.predict.probabilities.digit: unknown name"),
        ('predict = { label = { read = "redacted" } }', "", None),
        ('"full" }, prob', '"all" }, prob', "roles.desk.predict.label.read: "),
        ("top = 3", "top = 0", "roles.desk.explain.attention.top: "),
        ("top = 3", 'top = "3"', "roles.desk.explain.attention.top: "),
        ("epsilon = 0.5", "epsilon = 0", "roles.research.predict.label.epsilon: "),
        ("epsilon = 0.5", "epsilon = inf", "roles.research.predict.label.epsilon: "),
        ("epsilon = 0.5", "epsilon = true", "roles.research.predict.label.epsilon: "),
        ("30 days", "30 d", "roles.research.budget.period: expected such as '30 days'"),
        ('budget = { epsilon = 10, period = "30 days" }', "", "so the role needs a budget"),
        (
            'label = { read = "full", epsilon',
            'label = { read = "redacted", epsilon',
            'follows the full text: read = "full"',
        ),
        (
            "epsilon = 0.5 } }",
            'epsilon = 0.5 }, probabilities = { read = "full" } }',
            "label is drawn in vain where probabilities is read in full",
        ),
        (
            "epsilon = 0.5 } }",
            'epsilon = 0.5 }, certified_substitutions = { read = "redacted" } }',
            "certified_substitutions cannot stand beside a label that is drawn",
        ),
        (
            'probabilities = { read = "full", digits = 2 }',
            'certified_substitutions = { read = "redacted" }',
            "of the redacted text say nothing of a label of the full text",
        ),
        (
            "key = {",
            'attention = { read = "full" }, key = {',
            "key is drawn in vain where attention is read in full",
        ),
        (
            'explain]\ntokens = { read = "redacted" }',
            'explain]\ntokens = { read = "full" }',
            "attention of the redacted text cannot stand beside tokens in full",
        ),
        (
            'explain]\ntokens = { read = "redacted" }',
            'explain]\ntokens = { read = "substituted" }',
            'tokens are shown with placeholders: tokens = { read = "redacted" }',
        ),
        (
            'label = { read = "full", epsilon',
            'label = { read = "substituted", epsilon',
            'follows the full text: read = "full"',
        ),
        ('tokens = { read = "redacted" }\n', "", "roles.desk.explain.tokens: Field required"),
        (
            'label = { read = "redacted" }\nattention',
            'probabilities = { read = "redacted" }\nattention',
            "label cannot be denied",
        ),
        (
            'label = { read = "redacted" }\nattention',
            'integrated_gradients = { read = "redacted" }\nattention',
            "integrated_gradients explain the label, so label cannot be denied",
        ),
        (
            ", key = { epsilon = 1 }",
            ', label = { read = "full" }',
            "roles.research: predict draws in vain where explain reads the full text for nothing",
        ),
        (
            '"full", epsilon = 0.5',
            '"full"',
            "roles.research: explain draws in vain where predict reads the full text for nothing",
        ),
        ("{ epsilon = 2, labels", "{ labels", "roles.research.summarize.epsilon: Field required"),
        (
            'labels = { read = "full" }, attention = { read = "redacted" }',
            'labels = "deny"',
            "roles.research.summarize: expected a rule for labels, attention or attribution",
        ),
        (
            'labels = { read = "full" }, att',
            'labels = { read = "full", epsilon = 1 }, att',
            "roles.research.summarize.labels.epsilon: unknown name",
        ),
        ('"ann", "bob"', "", "roles.desk: expected at least one principal"),
        ("[roles.everyone]", "[roles.everyone]\nprincipals = ['x']", "expected no principals"),
        ('"eve"', '"ann"', "principal 1 is listed twice, first in the role desk"),
        ('"ann", "bob"', '"ann", "ann"', "listed twice"),
        ("[roles.desk]", "[role.desk]", "role: unknown name"),
        ("[roles.everyone]", "reveal_attention = true\n[roles.everyone]", "unknown name"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(path, old, new, message) -> None:
    assert old in DESK
    path.write_text(DESK.replace(old, new, 1))

    if message is None:  # an empty role denies
        assert load_policies(path).of("nobody").predict is None
        return
    with pytest.raises(InputError) as caught:
        load_policies(path)

    assert message in str(caught.value)
    assert not {"ann", "bob", "eve"} & set(str(caught.value).replace("'", " ").split())


@pytest.mark.parametrize(
    "content",
    [
        b"reveal_attention\n",
        b"\xff\xfe",
        pytest.param(b"a = " + b"[" * 3000 + b"]" * 3000, id="deep"),
        pytest.param(b"a = " + b"9" * 5000, id="long number"),
        b"roles = 3\n",
        b"[roles]\neveryone = 3\n",
    ],
)
def test_what_is_no_table_of_roles_is_refused(path, content) -> None:
    path.write_bytes(content)

    with pytest.raises(InputError, match=f"^policy {path}: "):
        load_policies(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read policy .* No such file"):
        load_policies(tmp_path / "none.toml")


# The earlier format


def test_switches_still_load() -> None:
    content = b"reveal_attention = false\n[principals.auditor]\nredact_sensitive_tokens = false\n"
    policies = read_policies(content)

    assert policies.of("anybody") == Switches(reveal_attention=False).role()
    assert policies.of("anybody").explain.attention is None
    assert policies.of("auditor").explain.reads == {"full"}
    assert policies.of("auditor").explain.attention is None


def test_switches_that_are_absent_are_safe() -> None:
    assert read_policies(b"").of("anybody") == SAFE == Switches().role()


def test_switches_that_are_all_off_explain_nothing() -> None:
    role = Switches(reveal_attention=False, reveal_integrated_gradients=False).role()

    assert role.explain is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"redact = true\n", "redact: unknown name"),
        (b"reveal_attention = 1\n", "reveal_attention: "),
        (b"principals = 3\n", "expected tables"),
        (b"[principals]\nreveal_attention = false\n", "expected tables"),
        (b"[principals.bot]\nredact = true\n", "redact: unknown name"),
        (b"[principals.bot]\nreveal_attention = 'no'\n", "reveal_attention: "),
    ],
)
def test_switches_that_cannot_be_meant_are_refused(content, message) -> None:
    with pytest.raises(InputError, match=message):
        read_policies(content)


# Files that change

PRINCIPALS = """
[[principal]]
name = "{}"
roles = ["predict"]
"""
ONE_ROLE = """
[roles.desk]
principals = ["ann"]
predict = { label = { read = "full" } }
"""


def test_a_policy_for_nobody_is_refused(path, tmp_path) -> None:
    principals = tmp_path / "principals.toml"
    path.write_text(ONE_ROLE)
    principals.write_text(PRINCIPALS.format("an"))

    with pytest.raises(InputError, match="no principal of the name that stands at place 1"):
        watched_policies(path, principals, names_in, can_charge=False)
    with pytest.raises(InputError, match="no principal of the name"):
        watched_policies(path, None, names_in, can_charge=False)


def test_a_drawing_policy_needs_a_budget(path) -> None:
    path.write_text(
        '[roles.everyone]\npredict = { label = { read = "full", epsilon = 1 } }\n'
        "budget = { epsilon = 3 }\n"
    )

    with pytest.raises(InputError, match="a budget must pay for: --budget URL"):
        watched_policies(path, None, names_in, can_charge=False)
    assert watched_policies(path, None, names_in, can_charge=True).get().draws


def test_a_change_holds_and_a_broken_one_changes_nothing(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("attnpriv_server.policy.files.CHECK_SECONDS", 0.0)
    principals = tmp_path / "principals.toml"
    path.write_text(ONE_ROLE)
    principals.write_text(PRINCIPALS.format("ann"))
    watched = watched_policies(path, principals, names_in, can_charge=False)
    assert watched.get().of("ann").predict.probabilities is None

    path.write_text(ONE_ROLE.replace("full", "all"))
    assert watched.get().of("ann").predict.label.read == "full"

    path.write_text(ONE_ROLE.replace("full", "redacted").replace("ann", "bob"))
    assert watched.get().of("ann").predict.label.read == "full"  # bob is not known yet
    principals.write_text(PRINCIPALS.format("bob"))
    assert watched.get().of("ann").predict is None
    assert watched.get().of("bob").predict.label.read == "redacted"


# In plain words


def test_a_policy_is_explained_in_plain_words() -> None:
    lines = explained(read_policies(DESK.encode()))

    assert lines == [
        "Role everyone: whoever no other role lists",
        "  Predict: computed from the redacted text alone. Hidden values change nothing in it.",
        "    the label: from the redacted text",
        "    the probability of every class: denied",
        "    how many replaced tokens cannot change the label: denied",
        "  Explain: denied.",
        "  Summarize: denied.",
        "  A model that was trained without privacy answers with labels alone.",
        "Role desk: ann, bob",
        "  Predict: depends on the whole text, sensitive parts included.",
        "    the label: from the whole text",
        "    the probability of every class: from the whole text, rounded to 2 decimal places",
        "    how many replaced tokens cannot change the label: denied",
        "  Explain: computed from the redacted text alone. Hidden values change nothing in it.",
        "    the words: with placeholders",
        "    the label: from the redacted text",
        "    the probability of every class: denied",
        "    attention of the last layer: from the redacted text, rounded to 3 decimal places, "
        "for the 3 largest alone",
        "    attention of every layer: denied",
        "    attention of every head: denied",
        "    attention rollout: denied",
        "    integrated gradients: denied",
        "    one drawn token: denied",
        "  Summarize: denied.",
        "  Predict on the model mail: depends on the whole text, sensitive parts included.",
        "    the label: from the whole text",
        "    the probability of every class: denied",
        "    how many replaced tokens cannot change the label: denied",
        "  Explain on the model mail: denied.",
        "  Summarize on the model mail: denied.",
        "  A model that was trained without privacy answers with labels alone.",
        "Role research: eve",
        "  Predict: computed from the redacted text, but for what is drawn. Two texts that differ "
        "in hidden values alone are told apart by at most ε = 0.5 for each text.",
        "    the label: drawn, at ε = 0.5",
        "    the probability of every class: denied",
        "    how many replaced tokens cannot change the label: denied",
        "  Explain: computed from the redacted text, but for what is drawn. Two texts that differ "
        "in hidden values alone are told apart by at most ε = 1 for each text.",
        "    the words: with placeholders",
        "    the label: denied",
        "    the probability of every class: denied",
        "    attention of the last layer: denied",
        "    attention of every layer: denied",
        "    attention of every head: denied",
        "    attention rollout: denied",
        "    integrated gradients: denied",
        "    one drawn token: by the attention of the last layer, at ε = 1",
        "  Summarize: many texts of the caller at once, all numbers with noise but how many texts "
        "there are. Two lists that differ in one text are told apart by at most ε = 2 for each "
        "summary.",
        "    how many texts have each label: from the whole text",
        "    mean attention on each type of personal data and on words: from the redacted text",
        "    mean attribution to them: denied",
        "  Caution: a model that was trained without privacy answers in the same way, which helps "
        "whoever tests whether a record was in its training data.",
        "  Each principal may spend ε = 10 on each model in 30 days.",
        "  Summaries are counted apart, against as much again.",
    ]
    content = DESK.replace('label = { read = "redacted" }', 'label = { read = "substituted" }')
    assert explained(read_policies(content.encode()))[1:3] == [
        "  Predict: computed from the redacted text alone, with public values in it. Hidden values "
        "change nothing in it.",
        "    the label: from the redacted text with public values in it",
    ]
    without = explained(read_policies(ONE_ROLE.encode()))
    assert without[-1] == "  is answered nothing: there is no role everyone."


# Every field of an answer is under a rule

PREDICT, EXPLAIN = PredictRules.model_fields, ExplainRules.model_fields
SUMMARIZE = SummarizeRules.model_fields
PUBLIC = "says nothing of the text or of what the model makes of it"
RULES = {
    "PredictResponse": {
        "label_names": PUBLIC,
        "predictions": "label",
        "version": PUBLIC,
        "redaction": PUBLIC,
        "micro_epsilon": PUBLIC,
    },
    "Prediction": {
        "label": "label",
        "probabilities": "probabilities",
        "truncated": "label",
        "certified_substitutions": "certified_substitutions",
    },
    "ExplainResponse": {
        "label_names": PUBLIC,
        "prediction": "label",
        "target_label": "label",
        "tokens": "tokens",
        "special_tokens": "tokens",
        "redaction": PUBLIC,
        "weight_bound": "attention",
        "version": PUBLIC,
        "integrated_gradients_error": "integrated_gradients",
        "integrated_gradients_withheld": "integrated_gradients",
        "micro_epsilon": PUBLIC,
        "drawn_token": "key",
    },
    "TokenExplanation": {
        "text": "tokens",
        "entity_types": "tokens",
        "offsets": "tokens",
        "box": "tokens",
        "attention": "attention",
        "layer_attention": "layer_attention",
        "head_attention": "head_attention",
        "rollout": "rollout",
        "integrated_gradients": "integrated_gradients",
    },
    "HeadAttention": {"heads": "head_attention"},
    "Redaction": dict.fromkeys(
        ("detector", "entity_types", "cannot_see", "hidden_from_model"), PUBLIC
    ),
    "Offsets": {"start": "tokens", "end": "tokens"},
    "PatchBox": dict.fromkeys(("left", "top", "right", "bottom"), "tokens"),
    "SummarizeResponse": {
        "version": PUBLIC,
        "texts": PUBLIC,  # their number, which the policy page calls public
        "labels": "labels",
        "groups": "attention",
        "redaction": PUBLIC,
        "micro_epsilon": PUBLIC,
    },
    "LabelSummary": {
        "label": PUBLIC,
        "count": "labels",
        "attention": "attention",
        "attribution": "attribution",
    },
    "GroupSummary": {
        "entity_type": PUBLIC,
        "word": PUBLIC,
        "attention": "attention",
        "attribution": "attribution",
    },
    "NoisedNumber": dict.fromkeys(("value", "low", "high", "noise"), "epsilon"),
}


def answers(message=None, seen=None) -> dict[str, set[str]]:
    """Every message that an answer about a text can hold, with its fields."""
    seen = {} if seen is None else seen
    methods = (pb.PredictResponse, pb.ExplainResponse, pb.SummarizeResponse)
    for each in message or [method.DESCRIPTOR for method in methods]:
        if each.name not in seen:
            seen[each.name] = {field.name for field in each.fields}
            answers([f.message_type for f in each.fields if f.message_type], seen)
    return seen


def test_every_field_of_an_answer_has_a_rule() -> None:
    assert answers() == {name: set(fields) for name, fields in RULES.items()}
    rules = {rule for fields in RULES.values() for rule in fields.values()} - {PUBLIC}
    assert rules == set(PREDICT) | set(EXPLAIN) | set(SUMMARIZE)


@pytest.mark.parametrize("name", ["help-desk", "external-api", "research"])
def test_the_examples_load(name) -> None:
    policies = load_policies(EXAMPLES / f"{name}.toml")

    assert policies.draws == (name == "research")
    assert explained(policies)
