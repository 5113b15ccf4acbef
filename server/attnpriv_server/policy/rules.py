"""What a policy file may say, checked when it is read.

A field's rule says what the model reads for it: the ``full`` text; the ``redacted`` one, in which a
mask token stands for each sensitive part; or the ``substituted`` one, in which a public value of
its type does. What does not read the full text is the same for any hidden values. A field with an
``epsilon`` is drawn: it follows the full text, as closely as that ε allows, and the ε is charged to
the caller's budget.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from attnpriv.errors import InputError

EVERYONE = "everyone"
DENY = "deny"
FOR_EVER = "for ever"

_PERIOD = re.compile(r"([1-9]\d{0,8}) (second|hour|day)s?")
_SECONDS = {"second": 1, "hour": 3600, "day": 86400}


def _number(value: Any) -> Any:
    """Numbers of TOML exactly as they are written: 0.1 is a tenth."""
    return Decimal(value) if type(value) is int else value


def _allowed(value: Any) -> Any:
    return None if value == DENY else value


Reads = Literal["full", "redacted", "substituted"]
Hiding = Literal["redacted", "substituted"]
Epsilon = Annotated[Decimal, BeforeValidator(_number), Field(ge=Decimal("0.000001"), le=20)]
Denied = BeforeValidator(_allowed)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Read(_Strict):
    """A field that is shown as it is.

    Attributes:
        read: what the model reads for it.
    """

    read: Reads


class Label(Read):
    """The most probable class.

    Attributes:
        epsilon: where given, the class is drawn around the redacted text's: randomised response.
    """

    epsilon: Epsilon | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.epsilon is not None and self.read != "full":
            raise ValueError('a label with an epsilon follows the full text: read = "full"')
        return self


class Rounded(Read):
    """Numbers.

    Attributes:
        digits: decimal places that they are rounded to; all where absent.
    """

    digits: Annotated[int, Field(ge=1, le=7)] | None = None


class Scores(Rounded):
    """A number for each token.

    Attributes:
        top: of how many tokens it is shown, those with the largest; all where absent.
    """

    top: Annotated[int, Field(ge=1)] | None = None


class Drawn(_Strict):
    """A token, drawn with nearly the chances that the full text's attention gives it.

    Attributes:
        epsilon: the price of one draw.
    """

    epsilon: Epsilon


class PredictRules(_Strict):
    """What Predict, its stream and the Open Inference Protocol answer.

    Attributes:
        label: the class.
        probabilities: of all classes.
        certified_substitutions: of how many tokens the label is proved to withstand. It is about
            the label of one reading, so it reads what the label reads; a drawn label has none.
    """

    label: Label
    probabilities: Annotated[Rounded | None, Denied] = None
    certified_substitutions: Annotated[Read | None, Denied] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        certified = self.certified_substitutions
        if certified is not None and self.epsilon is not None:
            raise ValueError("certified_substitutions cannot stand beside a label that is drawn")
        if certified is not None and certified.read != self.label.read:
            raise ValueError(
                f"certified_substitutions of the {certified.read} text say nothing of a label of "
                f"the {self.label.read} text"
            )
        if self.epsilon is not None:
            _check_beside_a_draw("label", {"probabilities": self.probabilities})
        return self

    @property
    def epsilon(self) -> Decimal | None:
        """What the answer on one text costs, or None."""
        return self.label.epsilon

    @property
    def reads(self) -> frozenset[Reads]:
        """What the model has to read."""
        fields = [self.label, self.probabilities, self.certified_substitutions]
        return _reads(fields, self.epsilon)


class ExplainRules(_Strict):
    """What Explain answers.

    Attributes:
        tokens: the words; ``redacted`` shows placeholders, which also hide the values that stand in
            a substituted text; ``full`` shows all, with their places.
        label: the class.
        probabilities: of all classes.
        attention: that each token gets in the last layer.
        layer_attention: in each layer.
        head_attention: in each head of each layer.
        rollout: attention through all layers (Abnar and Zuidema 2020).
        integrated_gradients: what each token adds to the class's score.
        key: one token, drawn by the attention of the last layer.
    """

    tokens: Read
    label: Annotated[Read | None, Denied] = None
    probabilities: Annotated[Rounded | None, Denied] = None
    attention: Annotated[Scores | None, Denied] = None
    layer_attention: Annotated[Scores | None, Denied] = None
    head_attention: Annotated[Scores | None, Denied] = None
    rollout: Annotated[Scores | None, Denied] = None
    integrated_gradients: Annotated[Scores | None, Denied] = None
    key: Annotated[Drawn | None, Denied] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.probabilities is not None and self.label is None:
            raise ValueError("probabilities show the label, so label cannot be denied")
        if self.integrated_gradients is not None and self.label is None:
            raise ValueError("integrated_gradients explain the label, so label cannot be denied")
        if self.key is not None:
            fields = {name: value for name, value in self if isinstance(value, Read)}
            _check_beside_a_draw("key", fields)
        if self.tokens.read == "substituted":
            raise ValueError('tokens are shown with placeholders: tokens = { read = "redacted" }')
        if self.tokens.read == "full":
            for name, rule in self.scores.items():
                if rule.read != "full":
                    raise ValueError(
                        f"{name} of the {rule.read} text cannot stand beside tokens in full"
                    )
        return self

    @property
    def scores(self) -> dict[str, Scores]:
        """The rules of what stands beside each token, by name."""
        return {name: value for name, value in self if isinstance(value, Scores)}

    @property
    def epsilon(self) -> Decimal | None:
        """What an answer costs, or None."""
        return None if self.key is None else self.key.epsilon

    @property
    def reads(self) -> frozenset[Reads]:
        """What the model has to read."""
        return _reads([value for _, value in self if isinstance(value, Read)], self.epsilon)


class SummarizeRules(_Strict):
    """What Summarize tells of many texts, all of it with noise.

    Attributes:
        epsilon: the price of one summary, whatever it tells and of however many texts.
        labels: how many texts have each label.
        attention: the mean share of the last layer's attention on each type and word.
        attribution: the same of integrated gradients.
    """

    epsilon: Epsilon
    labels: Annotated[Read | None, Denied] = None
    attention: Annotated[Read | None, Denied] = None
    attribution: Annotated[Read | None, Denied] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.figures:
            raise ValueError("expected a rule for labels, attention or attribution")
        return self

    @property
    def figures(self) -> dict[str, Read]:
        """The rules of what may be told, by name."""
        return {name: value for name, value in self if isinstance(value, Read)}


class Budget(_Strict):
    """What one principal may spend on one model.

    Attributes:
        epsilon: the most that all drawn answers of one period may add up to; and, apart from
            these, all summaries.
        period: such as ``30 days``, or ``for ever``.
    """

    epsilon: Annotated[Decimal, BeforeValidator(_number), Field(ge=Decimal("0.000001"), le=10**6)]
    period: str = FOR_EVER

    @field_validator("period")
    @classmethod
    def _check_period(cls, period: str) -> str:
        if period != FOR_EVER and not _PERIOD.fullmatch(period):
            raise ValueError(f"expected such as '30 days', '12 hours' or '{FOR_EVER}'")
        return period

    @property
    def seconds(self) -> int | None:
        """Length of the period; None for ever."""
        found = _PERIOD.fullmatch(self.period)
        return None if found is None else int(found[1]) * _SECONDS[found[2]]


class Rules(_Strict):
    """What the methods answer on one model."""

    predict: Annotated[PredictRules | None, Denied] = None
    explain: Annotated[ExplainRules | None, Denied] = None
    summarize: Annotated[SummarizeRules | None, Denied] = None

    @model_validator(mode="after")
    def _check_methods(self) -> Self:
        predict, explain = self.predict, self.explain
        if predict is not None and explain is not None:
            _check_beside_drawing("predict", predict, "explain", explain)
            _check_beside_drawing("explain", explain, "predict", predict)
        return self


class Role(Rules):
    """What some principals are answered.

    Attributes:
        principals: their names in the principals file.
        predict: what Predict answers, but on the models below.
        explain: what Explain answers, but on the models below.
        summarize: what Summarize answers, but on the models below.
        models: other rules, in place of these, for single models.
        restrict_non_private_models: a model that was not trained privately answers with labels
            alone and explains nothing. That takes the scores from whoever tests whether a record
            was trained on; labels alone still support weaker tests. A model trained under
            differential privacy needs no such limit: its ε holds for all that is computed from it.
        budget: what each of them may spend on each model.
    """

    principals: list[Annotated[str, Field(min_length=1)]] = []
    models: dict[str, Rules] = {}
    restrict_non_private_models: bool = True
    budget: Budget | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.budget is None and any(each.epsilon is not None for each in self._answers()):
            raise ValueError("drawn answers and summaries cost epsilon, so the role needs a budget")
        return self

    def of_model(self, name: str) -> Rules:
        """The rules for a model."""
        return self.models.get(name, self)

    @property
    def draws(self) -> bool:
        """Whether any answer is charged."""
        return self.budget is not None and any(each.epsilon is not None for each in self._answers())

    @property
    def summarizes(self) -> bool:
        """Whether there are summaries, which need noise."""
        return any(rules.summarize is not None for rules in (self, *self.models.values()))

    def _answers(self) -> Iterator[PredictRules | ExplainRules | SummarizeRules]:
        for rules in (self, *self.models.values()):
            methods = (rules.predict, rules.explain, rules.summarize)
            yield from (each for each in methods if each is not None)


def _reads(rules: Collection[Read | None], epsilon: Decimal | None) -> frozenset[Reads]:
    drawn: set[Reads] = set() if epsilon is None else {"full", "redacted"}
    return frozenset(drawn | {rule.read for rule in rules if rule is not None})


def _check_beside_a_draw(drawn: str, fields: Mapping[str, Read | None]) -> None:
    for name, rule in fields.items():
        if rule is not None and rule.read == "full":
            raise ValueError(f"{drawn} is drawn in vain where {name} is read in full")


def _check_beside_drawing(
    name: str,
    drawing: PredictRules | ExplainRules,
    other_name: str,
    other: PredictRules | ExplainRules,
) -> None:
    if drawing.epsilon is not None and other.epsilon is None and "full" in other.reads:
        raise ValueError(f"{name} draws in vain where {other_name} reads the full text for nothing")


SAFE = Role(
    predict=PredictRules(
        label=Label(read="full"),
        probabilities=Rounded(read="full"),
        certified_substitutions=Read(read="full"),
    ),
    explain=ExplainRules(
        tokens=Read(read="redacted"),
        label=Read(read="redacted"),
        probabilities=Rounded(read="redacted"),
        attention=Scores(read="redacted"),
        layer_attention=Scores(read="redacted"),
        integrated_gradients=Scores(read="redacted"),
    ),
)
"""Of everyone where there is no policy: predictions in full, explanations of the redacted text."""

NOTHING = Role()


class Policies:
    """The role of each principal.

    Claim: a principal's answers follow its own role and no other's. Not covered: principals that
    show their answers to one another together hold what the most open of their roles reveals.

    Args:
        roles: by name; ``everyone`` is of whoever no other role lists. Without it, whoever is not
            listed is answered nothing. Default: ``everyone`` has the safe role.

    Raises:
        InputError: ``everyone`` lists principals, another role none, or two roles share one.
    """

    def __init__(self, roles: Mapping[str, Role] | None = None) -> None:
        self.roles = {EVERYONE: SAFE} if roles is None else dict(roles)
        self._role_names: dict[str, str] = {}
        for name, role in self.roles.items():
            if (name == EVERYONE) == bool(role.principals):
                expected = "no principals" if name == EVERYONE else "at least one principal"
                raise InputError(f"roles.{name}: expected {expected}")
            for number, principal in enumerate(role.principals, 1):
                other = self._role_names.setdefault(principal, name)
                if other != name or role.principals.count(principal) > 1:
                    raise InputError(
                        f"roles.{name}: principal {number} is listed twice, "
                        f"first in the role {other}"
                    )

    def of(self, principal: str) -> Role:
        """What answers to a principal, by its name, may reveal."""
        return self.roles.get(self._role_names.get(principal, EVERYONE), NOTHING)

    @property
    def draws(self) -> bool:
        """Whether any role needs a budget."""
        return any(role.draws for role in self.roles.values())

    @property
    def summarizes(self) -> bool:
        """Whether any role has summaries."""
        return any(role.summarizes for role in self.roles.values())

    def check_principals(self, names: Collection[str]) -> None:
        """Refuse a policy for nobody: a name that is mistyped would leave ``everyone`` in force.

        Raises:
            InputError: a role lists a name that is not among ``names``. It is not quoted.
        """
        for role_name, role in self.roles.items():
            for number, name in enumerate(role.principals, 1):
                if name not in names:
                    raise InputError(
                        f"roles.{role_name}: the principals file has no principal of the name "
                        f"that stands at place {number} of principals"
                    )
