"""The ``attnpriv`` command, with one module for each subcommand or two.

Exit codes: 0 done; 1 a gate or a check of the trainer failed; 2 a gate came to no verdict, or bad
input or usage (one line on stderr); 130 interrupted; 141 the reader of the output is gone.
"""

from __future__ import annotations

from typing import Annotated

import typer

from attnpriv import __version__, openmp  # noqa: F401  # before anything loads torch
from attnpriv.cli.audit import audit
from attnpriv.cli.certify import certify
from attnpriv.cli.data import data_app
from attnpriv.cli.encoder import encoder_app
from attnpriv.cli.gate import gate
from attnpriv.cli.output import console
from attnpriv.cli.predict import predict
from attnpriv.cli.runs import evaluate
from attnpriv.cli.shadows import shadows
from attnpriv.cli.study import study
from attnpriv.cli.train import train
from attnpriv.cli.tune import tune
from attnpriv.cli.verify import verify_trainer
from attnpriv.command import help_of, run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")
app.add_typer(encoder_app, name="encoder")
COMMANDS = (
    train, tune, verify_trainer, evaluate, predict, certify, shadows, audit, study, gate,
)  # fmt: skip
for command in COMMANDS:
    app.command(help=help_of(command))(command)


def main() -> None:
    """Run the command; an error is one line on stderr."""
    run_command(app)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train attention models under differential privacy, and audit what they give away."""
    if version:
        console.print(f"attnpriv {__version__}")
        raise typer.Exit
