"""The ``attnpriv-client`` command: predict, explain, audit, models, health.

Exit codes: 0 done, 1 not healthy, 2 bad input, a call that failed or a text that was refused (one
line on stderr), 130 interrupted, 141 whoever read the output is gone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console, RenderableType

from attnpriv.command import INTERRUPTED, READER_GONE, complain, run_command
from attnpriv.errors import InputError
from attnpriv.replacing import replace_file, replaceable
from attnpriv.visible import has_visible
from attnpriv_client import render
from attnpriv_client.audit import read_rows, run_audit
from attnpriv_client.audit.results import to_json
from attnpriv_client.audit.view import audit_progress, audit_view
from attnpriv_client.client import Client
from attnpriv_client.domain import Prediction
from attnpriv_client.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ServiceError,
    UnavailableError,
)
from attnpriv_client.files import Lines, progress_bar
from attnpriv_client.options import Json, Model, Version, with_client
from attnpriv_client.output import open_output, write_answers
from attnpriv_client.window import Text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


def main() -> None:
    """Run the command; what goes wrong is one line on stderr and exit code 2."""
    run_command(app)


@app.command()
@with_client
def predict(
    client: Client,
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; `-` reads stdin, one text a line.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A UTF-8 file with one text a line.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write a line of JSON for each line of stdin or of --file here."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an --output that was interrupted.")
    ] = False,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Print the label of each text, or write the labels of a file of any length to another.

    Without --output, all texts and answers are held in memory, and one bad line is an error. With
    it, a line that is not UTF-8 or too long, or that the server refuses, has its error in its line
    of the output; the others go on, and the exit code is 2 in the end. Whatever stops the work,
    Ctrl-C or a server that is gone, the same command with --resume goes on where it stopped.
    """
    if output is None:
        asked = _read_texts(texts or [], file)
        answers = _predictions(client, model, asked, version)
        value = {"model": model, "predictions": [asdict(answer) for answer in answers]}
        _print(as_json, value, render.predictions_table(asked, answers))
    else:
        with _interruptible():
            lines = _predict_file(client, model, version, texts or [], file, output, resume)
        summary = {"model": model, "lines": lines, "output": str(output)}
        _print(as_json, summary, render.written(lines, output), err=_is_stdout(output))


@app.command()
@with_client
def explain(
    client: Client,
    model: Model,
    text: Annotated[str, typer.Argument(help="The text; `-` reads all of stdin.")],
    label: Annotated[
        str | None, typer.Option(help="The class to explain. Default: the predicted one.")
    ] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Print what the answer on one text rests on, token by token."""
    asked = _stdin_text() if text == "-" else text
    answer = client.explain(model, asked, label, version)
    _print(as_json, {"model": model, **asdict(answer)}, render.explanation_view(answer))


@app.command()
@with_client
def audit(
    client: Client,
    model: Model,
    file: Annotated[
        Path,
        typer.Option(
            help="A .jsonl, .csv or .tsv file with columns text and, where known, label, spans "
            "(start, end, entity_type) and member."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rows to ask about at most.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the sample of rows and all that is drawn.")] = 0,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Measure from outside what a model's answers give away, as far as its server lets on.

    It asks as you, under the server's policy, and spends what the server counts for you: each row
    is explained once, and predicted in many variants. What could not be measured is listed with
    the reason. Neither the screen nor the file shows a text. Ctrl-C ends with what was measured.
    """
    rows = read_rows(file)
    if out is not None:
        _check_other(out, file)
        with _writing(out):
            replaceable(out)  # only checked: that it cannot be written shall not show in the end
    asked = min(limit, len(rows))
    complain(
        f"asking for up to {asked + 1} explanations and for predictions of {asked} rows and their "
        "variants; a server that keeps a privacy budget for you counts the explanations"
    )
    with _interruptible(), audit_progress() as progress:
        found = run_audit(
            client,
            model,
            rows,
            data=file.stem,
            source=str(file),
            version=version,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    value = to_json(found)
    try:
        if out is not None:
            _write_json(out, value)
    finally:  # a full disk does not take what was measured
        _print(as_json, value, audit_view(found), err=out is not None and _is_stdout(out))
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
@with_client
def models(
    client: Client,
    name: Annotated[str | None, typer.Argument(help="Show the card of this model.")] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """List the models, or show the card of one."""
    if name is None:
        found = client.models()
        _print(as_json, {"models": [asdict(each) for each in found]}, render.models_table(found))
    else:
        card = client.model_card(name, version)
        _print(as_json, asdict(card), render.card_table(card))


@app.command()
@with_client
def health(
    client: Client,
    model: Annotated[str | None, typer.Argument(help="Ask about this model alone.")] = None,
) -> None:
    """Say whether the server, or one model, answers; exit code 0 where it does, 1 where not."""
    try:
        state = "serving" if client.health(model) else "not serving"
    except (UnavailableError, DeadlineExceededError) as error:
        state = f"unreachable: {error}"
    sys.stdout.write(f"{render.printable(state)}\n")
    if state != "serving":
        raise typer.Exit(1)


def _predictions(
    client: Client, model: str, texts: Sequence[str], version: str | None
) -> list[Prediction]:
    answers = []
    for number, answer in enumerate(client.predict_stream(model, texts, version), start=1):
        if isinstance(answer, ServiceError):
            raise InputError(f"text {number}: {answer}")
        answers.append(answer)
    return answers


def _predict_file(
    client: Client,
    model: str,
    version: str | None,
    texts: Sequence[str],
    file: Path | None,
    output: Path,
    resume: bool,
) -> int:
    """Write the output, and say how many lines it has; InputError where texts were refused."""
    if file is not None:
        _check_other(output, file)
    with _open_lines(texts, file) as lines:
        size = None if file is None else file.stat().st_size or None
        with (
            open_output(output, model, version, lines, resume) as written,
            progress_bar(lines, size) as on_answer,
        ):
            write_answers(client, lines, written, on_answer)
    state = written.state
    if state.refused:
        raise InputError(
            f"{state.refused} of {state.lines} lines have an error in place of a prediction "
            f"in {output}; the first: {state.first_refusal}"
        )
    return state.lines


def _check_other(output: Path, file: Path) -> None:
    with suppress(OSError):  # what cannot be looked at is refused where it is opened
        if output.samefile(file):
            raise InputError(f"expected another file than {file} for the output")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is no defect: one line says what there is to go on with. Nor is ``| head``."""
    try:
        yield
    except KeyboardInterrupt as error:
        complain("interrupted", getattr(error, "__notes__", ()))
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise typer.Exit(READER_GONE) from None


def _read_texts(texts: Sequence[str], file: Path | None) -> list[str]:
    if file is None and texts and list(texts) != ["-"]:
        return list(texts)
    with _open_lines(texts, file) as lines:
        found = [_usable(line, number, lines.name) for number, line in enumerate(lines, start=1)]
    return found or [_usable("", 1, lines.name)]


def _usable(line: Text, number: int, name: str) -> str:
    if isinstance(line, InvalidRequestError):
        raise InputError(f"{name}, line {number}: {line.message}")
    if not has_visible(line):
        raise InputError(
            f"expected a text in each line of {name}, line {number} is empty or invisible"
        )
    return line


@contextmanager
def _open_lines(texts: Sequence[str], file: Path | None) -> Iterator[Lines]:
    """The lines of the file, or of stdin where a dash stands for the texts."""
    if file is None and list(texts) == ["-"]:
        yield Lines(_stdin(), "stdin")
    elif file is None or texts:
        raise InputError("expected texts, or - for stdin, or --file, and only one of these")
    else:
        try:
            stream = file.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
        with stream:
            yield Lines(stream, str(file))


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise InputError("cannot read stdin: it is closed")
    return sys.stdin.buffer


def _stdin_text() -> str:
    try:
        return _stdin().read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 in stdin, byte {error.start} is not") from None
    except OSError as error:
        raise InputError(f"cannot read stdin: {error.strerror}") from error


def _print(
    as_json: bool, value: dict[str, Any], view: RenderableType, *, err: bool = False
) -> None:
    if as_json:
        stream = sys.stderr if err else sys.stdout
        stream.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        Console(stderr=err).print(view)


def _is_stdout(path: Path) -> bool:
    """Whether what is written there goes where this command prints."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write all of it or nothing, for its owner alone: the figures are about private rows."""
    content = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    with _writing(path):
        replace_file(path, content.encode(), 0o600)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
