"""``attnpriv-server policy``: what a policy means, and what a caller would receive under it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from attnpriv.command import help_of
from attnpriv.errors import InputError
from attnpriv_server.domain import (
    Credentials,
    ExplainRequest,
    Explanation,
    Predictions,
    PredictRequest,
    RefusedError,
    Request,
    Response,
    Token,
)
from attnpriv_server.limits import Limits
from attnpriv_server.queueing import Batching

if TYPE_CHECKING:
    from attnpriv_server.core import Core
    from attnpriv_server.policy import ExplainRules, PredictRules, Role

policy_app = typer.Typer(
    no_args_is_help=True, help="Explain a policy file, or try it on texts without a server."
)

PolicyFile = Annotated[Path, typer.Argument(help="TOML file, as for --policy of the server.")]
SHOWN_DIGITS = 4


def explain(file: PolicyFile) -> None:
    """Say in plain words who is answered what, from which text, and at what price.

    The output names principals.
    """
    from attnpriv_server.policy import load_policies
    from attnpriv_server.policy.words import explained

    for line in explained(load_policies(file)):
        typer.echo(line)


def try_(
    file: PolicyFile,
    models: Annotated[Path, typer.Option(help="Folder of run folders, as for the server.")],
    role: Annotated[str, typer.Option(help="Role of the policy whose answers are shown.")],
    text: Annotated[list[str], typer.Option(help="A text to ask about; can be repeated.")],
    model: Annotated[
        str | None, typer.Option(help="Only this model. Default: every model in the folder.")
    ] = None,
    detection: Annotated[
        Path | None, typer.Option(help="TOML file, as for --detection of the server.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what a caller of a role would receive for texts, field by field.

    What is withheld is named with the reason, and what the answer would cost with the price.
    Nothing is charged: draws are paid from a budget that exists for this command alone. The output
    shows what the caller would see of the texts.
    """
    from attnpriv.data.tokenisation import check_unicode
    from attnpriv_server.policy import load_policies

    for each in text:
        check_unicode(each)
    policies = load_policies(file)
    if role not in policies.roles:
        raise InputError(f"expected a role among {', '.join(policies.roles)}, got {role!r}")
    tried = _tried(policies.roles[role], models, model, detection, text)
    if json_:
        typer.echo(json.dumps([each.as_json() for each in tried], ensure_ascii=False, indent=2))
        return
    console = Console(markup=False, emoji=False, highlight=False)
    for answers in tried:
        _print(console, answers, policies.roles[role])


for name, command in (("explain", explain), ("try", try_)):
    policy_app.command(name, help=help_of(command))(command)


@dataclass(frozen=True)
class _Tried:
    """What a caller would receive for one text from one model; a string is why it is refused."""

    model: str
    number: int
    predict: Response | str
    explain: Response | str

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "text": self.number,
            "predict": _as_json(self.predict),
            "explain": _as_json(self.explain),
        }


def _as_json(answer: Response | str) -> dict[str, Any]:
    return {"refused": answer} if isinstance(answer, str) else asdict(answer)


def _tried(
    role: Role, models: Path, model: str | None, detection: Path | None, texts: Sequence[str]
) -> list[_Tried]:
    with ExitStack() as stack:
        core = _core(stack, role, models, detection)
        names = sorted(core.repository.models())
        if model is not None and model not in names:
            raise InputError(f"expected a model among {', '.join(names)}, got {model!r}")
        return asyncio.run(_ask(core, [model] if model else names, texts))


def _core(stack: ExitStack, role: Role, models: Path, detection: Path | None) -> Core:
    from attnpriv.sensitive import PresidioDetector, load_rules
    from attnpriv_server.access import Access
    from attnpriv_server.budget.charging import Budget
    from attnpriv_server.core import Core
    from attnpriv_server.models.repository import Repository
    from attnpriv_server.policy import EVERYONE, Policies
    from attnpriv_server.telemetry import Telemetry

    telemetry = stack.enter_context(closing(Telemetry()))
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    detector = PresidioDetector(None if detection is None else load_rules(detection))
    repository = stack.enter_context(Repository(models, "float32", None, telemetry))
    policies = Policies({EVERYONE: role.model_copy(update={"principals": []})})
    budget = Budget.open(f"sqlite:///{folder}/budget.db", telemetry) if role.draws else None
    core = Core(
        repository,
        Access.anonymous(),
        lambda: policies,
        Limits(),
        Batching(),
        telemetry,
        detector=detector,
        budget=budget,
    )
    return stack.enter_context(closing(core))


async def _ask(core: Core, models: Sequence[str], texts: Sequence[str]) -> list[_Tried]:
    return [
        _Tried(
            model,
            number,
            await _answer(core, PredictRequest(model, (text,))),
            await _answer(core, ExplainRequest(model, text)),
        )
        for model in models
        for number, text in enumerate(texts, 1)
    ]


async def _answer(core: Core, request: Request) -> Response | str:
    from attnpriv_server.calls import Incoming

    try:
        async with core.call(Incoming("policy try", request.role, Credentials)) as call:
            return await call.answer(request)
    except RefusedError as refusal:
        return f"{refusal.status.code}: {refusal.status.message}"


def _print(console: Console, tried: _Tried, role: Role) -> None:
    rules = role.of_model(tried.model)
    console.print(f"model {tried.model}, text {tried.number}")
    for method, answer, fields in (
        ("Predict", tried.predict, rules.predict),
        ("Explain", tried.explain, rules.explain),
    ):
        console.print(f"  {method}")
        lines = (
            [f"refused: {answer}"]
            if isinstance(answer, str) or fields is None
            else _lines(answer, fields)
        )
        for line in lines:
            console.print(Padding(line, (0, 0, 0, 4)))
        if isinstance(answer, Explanation):
            table = _table([*answer.tokens, *answer.special_tokens])
            console.print(Padding(table, (0, 0, 0, 4)))
    console.print()


def _lines(answer: Response, rules: PredictRules | ExplainRules) -> Iterator[str]:
    from attnpriv_server.policy.words import FIELDS, field, protection

    yield protection(rules)
    shown = _shown(answer)
    for name, words in FIELDS.items():
        if hasattr(rules, name):
            rule = getattr(rules, name)
            how = field(name, rule)
            if name in shown:
                yield f"{words}: {shown[name]} ({how})"
            elif name == "probabilities" and rule is not None:
                yield f"{words}: withheld, because the model was not trained privately"
            elif name == "certified_substitutions" and rule is not None:
                yield f"{words}: not proved, or the model was not trained privately"
            else:
                yield f"{words}: {how}"
    if isinstance(answer, Explanation) and answer.integrated_gradients_withheld:
        yield f"integrated gradients are withheld: {answer.integrated_gradients_withheld}"
    if isinstance(answer, Predictions | Explanation):
        micro = answer.micro_epsilon
        yield f"cost: ε = {micro / 10**6:g}" if micro else "cost: nothing"


def _shown(answer: Response) -> dict[str, str]:
    """The fields of an answer that are no table, as text."""
    match answer:
        case Predictions(predictions=(prediction,)):
            found = prediction
        case Explanation(prediction=prediction) if prediction is not None:
            found = prediction
        case _:
            return {}
    shown = {"label": found.label}
    if found.probabilities is not None:
        pairs = zip(answer.label_names, found.probabilities, strict=True)
        shown["probabilities"] = ", ".join(
            f"{name} {value:.{SHOWN_DIGITS}g}" for name, value in pairs
        )
    if found.certified_substitutions is not None:
        shown["certified_substitutions"] = str(found.certified_substitutions)
    if isinstance(answer, Explanation) and answer.drawn_token is not None:
        shown["key"] = answer.tokens[answer.drawn_token].text
    return shown


def _table(tokens: Sequence[Token]) -> Table:
    """The tokens with the numbers that every one of them may have; lists are left to JSON."""
    table = Table("token", box=None, pad_edge=False)
    columns = [
        name
        for name in ("attention", "rollout", "integrated_gradients")
        if any(getattr(token, name) is not None for token in tokens)
    ]
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for token in tokens:
        values = [getattr(token, name) for name in columns]
        table.add_row(
            token.text, *("" if value is None else f"{value:.{SHOWN_DIGITS}f}" for value in values)
        )
    return table
