"""``attnpriv-server budget``: what was spent, for the operator of the server."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from attnpriv.errors import InputError
from attnpriv_server.budget.accounts import MICRO, Relation, Unit

if TYPE_CHECKING:
    from attnpriv_server.budget.store import Usage

budget_app = typer.Typer(
    no_args_is_help=True,
    help="Show or export what callers have spent of their privacy budgets. "
    "The output names principals.",
)

COLUMNS = (
    "principal",
    "model",
    "relation",
    "unit",
    "starts",
    "ends",
    "allowed",
    "spent",
    "charges",
)
SYMBOLS = {Unit.EPSILON: "ε", Unit.RHO: "ρ"}

Url = Annotated[
    str,
    typer.Option(
        "--budget",
        envvar="ATTNPRIV_BUDGET",
        help="Where the budget is kept: sqlite:///PATH or postgresql://USER@HOST/NAME. The "
        "variable keeps a password out of the list of processes.",
    ),
]
Principal = Annotated[str | None, typer.Option(help="Only the budgets of this principal.")]
Model = Annotated[str | None, typer.Option(help="Only the budgets for this model.")]
RelationName = Annotated[Relation | None, typer.Option(help="Only the budgets of this relation.")]


@budget_app.command()
def show(
    budget: Url,
    principal: Principal = None,
    model: Model = None,
    relation: RelationName = None,
    past: Annotated[bool, typer.Option("--past", help="Also show periods that are over.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what each principal has spent and has left, by model, relation and period."""
    now = int(time.time())
    found = _usage(budget, principal, model, relation)
    shown = [each for each in found if past or each.window.holds(now)]
    if json_:
        _print_json(shown)
    elif shown:
        Console(markup=False, emoji=False).print(_table(shown))
    else:
        sys.stdout.write("nothing was charged in a period that is running\n")


@budget_app.command()
def export(
    budget: Url,
    principal: Principal = None,
    model: Model = None,
    relation: RelationName = None,
    format_: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="What to print.")
    ] = "csv",
) -> None:
    """Print every account and period, past ones too, in whole millionths of ε or ρ."""
    found = _usage(budget, principal, model, relation)
    if format_ == "json":
        _print_json(found)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_row, found))


def _usage(
    url: str, principal: str | None, model: str | None, relation: Relation | None
) -> list[Usage]:
    # SQLAlchemy takes most of a second to import, which no other command should wait for.
    from attnpriv_server.budget.database import StoreDownError, open_database
    from attnpriv_server.budget.store import Store

    store = Store(open_database(url, create=False))
    try:
        found = store.usage()
    except StoreDownError as error:
        raise InputError(f"cannot read the budget database: {error}") from None
    finally:
        store.close()
    return [
        each
        for each in found
        if principal in (None, each.account.principal)
        and model in (None, each.account.model)
        and relation in (None, each.account.relation)
    ]


def _row(usage: Usage) -> dict[str, Any]:
    account, window = usage.account, usage.window
    return {
        "principal": account.principal,
        "model": account.model,
        "relation": account.relation.value,
        "unit": usage.unit.value,
        "starts": None if window.ends is None else _moment(window.starts),
        "ends": None if window.ends is None else _moment(window.ends),
        "allowed": usage.allowed,
        "spent": usage.spent,
        "charges": usage.charges,
    }


def _print_json(usage: Sequence[Usage]) -> None:
    rows = [_row(each) for each in usage]
    sys.stdout.write(json.dumps({"budgets": rows}, ensure_ascii=False, indent=2) + "\n")


def _table(usage: Iterable[Usage]) -> Table:
    table = Table("principal", "model", "relation", "period")
    for name in ("spent", "of", "left", "charges"):
        table.add_column(name, justify="right")
    for each in usage:
        left = max(each.allowed - each.spent, 0)  # a limit may have been lowered since
        table.add_row(
            each.account.principal,
            each.account.model,
            each.account.relation.value,
            _period(each),
            *(_amount(value, each.unit) for value in (each.spent, each.allowed, left)),
            str(each.charges),
        )
    return table


def _period(usage: Usage) -> str:
    window = usage.window
    if window.ends is None:
        return "for ever"
    return f"{_moment(window.starts)} to {_moment(window.ends)}"


def _amount(micro: int, unit: Unit) -> str:
    """In whole units, exactly; a float would round."""
    return f"{micro // MICRO}.{micro % MICRO:06d} {SYMBOLS[unit]}"


def _moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
