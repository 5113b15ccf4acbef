"""The ``attnpriv-client`` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from attnpriv.errors import AttnprivError, InputError
from attnpriv_client import render
from attnpriv_client.client import DEFAULT_TIMEOUT, Client

# Texts in one request: below the server's limit, and a request of long ones still fits a message.
BATCH = 32

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

Target = Annotated[str, typer.Option(help="HOST:PORT of the server.")]
Model = Annotated[str, typer.Option(help="Name of the model; `models` lists them.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for an answer.")]


def main() -> None:
    """Run the command; what goes wrong is one line on stderr and exit code 2."""
    try:
        app()
    except AttnprivError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


@app.command()
def predict(
    target: Target,
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; `-` reads stdin, one text a line.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A UTF-8 file with one text a line.")] = None,
    as_json: Json = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Print the label of each text."""
    asked = _read_texts(texts or [], file)
    with Client(target, timeout) as client:
        answers = [
            prediction
            for start in range(0, len(asked), BATCH)
            for prediction in client.predict(model, asked[start : start + BATCH])
        ]
    value = {"model": model, "predictions": [asdict(answer) for answer in answers]}
    _print(as_json, value, render.predictions_table(asked, answers))


@app.command()
def explain(
    target: Target,
    model: Model,
    text: Annotated[str, typer.Argument(help="The text; `-` reads all of stdin.")],
    label: Annotated[
        str | None, typer.Option(help="The class to explain. Default: the predicted one.")
    ] = None,
    as_json: Json = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Print what the answer on one text rests on, token by token."""
    asked = _decode(sys.stdin.buffer.read(), "stdin") if text == "-" else text
    with Client(target, timeout) as client:
        answer = client.explain(model, asked, label)
    _print(as_json, {"model": model, **asdict(answer)}, render.explanation_view(answer))


@app.command()
def models(
    target: Target,
    name: Annotated[str | None, typer.Argument(help="Show the card of this model.")] = None,
    as_json: Json = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """List the models, or show the card of one."""
    with Client(target, timeout) as client:
        if name is None:
            found = client.models()
            value = {"models": [asdict(each) for each in found]}
            _print(as_json, value, render.models_table(found))
        else:
            card = client.model_card(name)
            _print(as_json, asdict(card), render.card_table(card))


def _read_texts(texts: Sequence[str], file: Path | None) -> list[str]:
    if bool(texts) == (file is not None):
        raise InputError("expected texts, or - for stdin, or --file, and only one of these")
    if file is not None:
        try:
            return _lines(file.read_bytes(), str(file))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
    if list(texts) == ["-"]:
        return _lines(sys.stdin.buffer.read(), "stdin")
    return list(texts)


def _lines(content: bytes, source: str) -> list[str]:
    lines = _decode(content, source).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise InputError(f"expected a text in each line of {source}, line {number} is empty")
    return [line.removesuffix("\r") for line in lines]


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 in {source}, byte {error.start} is not") from None


def _print(as_json: bool, value: dict[str, Any], view: RenderableType) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
    else:
        Console().print(view)
