"""The ``attnpriv-client`` command: predict, explain, summarize, audit, models, health.

Exit codes: 0 done; 1 not healthy; 2 bad input, a failed call or a refused text (one line on
stderr); 130 interrupted; 141 the reader of the output is gone.
"""

from __future__ import annotations

import json
import os
import re
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
from attnpriv.progress import stage_bars
from attnpriv.replacing import replace_file, replaceable
from attnpriv.visible import has_visible
from attnpriv_client import render
from attnpriv_client.audit import read_rows, run_audit
from attnpriv_client.audit.results import to_json
from attnpriv_client.audit.shadow_answers import read_shadow_answers
from attnpriv_client.audit.view import audit_view
from attnpriv_client.client import Client
from attnpriv_client.domain import Prediction, SensitiveSpan
from attnpriv_client.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ServiceError,
    UnavailableError,
)
from attnpriv_client.files import Lines, progress_bar
from attnpriv_client.images import Regions, predict_files, read_image
from attnpriv_client.options import Json, Model, Version, with_client
from attnpriv_client.output import open_output, write_answers
from attnpriv_client.window import Text

_SPAN = re.compile(r"(\d{1,9}):(\d{1,9}):(.+)")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Ask an attnpriv server for predictions and explanations, and audit what it gives away.",
)


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 2."""
    run_command(app)


@app.command()
@with_client
def predict(
    client: Client,
    model: Model,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="The texts, or - to read them from stdin, one per line."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the texts from this UTF-8 file, one per line.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="PNG or JPEG file to ask about in place of texts; can be repeated."),
    ] = None,
    region: Regions = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write the answers to, one line of JSON for each line read."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an --output that was interrupted.")
    ] = False,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Print the label of each text or image, or write those of a file of texts to another file.

    Without --output, all texts and answers are held in memory, and one bad line ends the command.
    With --output, a line that is not UTF-8, is too long or is refused by the server gets its error
    as its line of the output; the other lines are answered, and the exit code is 2. If the work is
    interrupted, by Ctrl-C or because the server is gone, the same command with --resume continues
    where it stopped.
    """
    if image:
        _refuse_beside_images(texts, file, output)
        labels = predict_files(client, model, image, region, version)
        value = {"model": model, "predictions": [asdict(answer) for answer in labels]}
        _print(
            as_json, value, render.predictions_table([str(path) for path in image], labels, "image")
        )
    elif region:
        raise InputError("--region needs --image")
    elif output is None:
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
    text: Annotated[str | None, typer.Argument(help="The text; `-` reads all of stdin.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="PNG or JPEG file to explain in place of a text.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The class to explain. Default: the predicted one.")
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(
            help="START:END:TYPE of personal data that you know to be in the text, such as "
            "8:15:CUSTOMER_ID, counted in characters; can be repeated. The server hides it "
            "wherever it hides what it finds itself.",
        ),
    ] = None,
    region: Regions = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Explain the answer to one text, token by token, or to one image, patch by patch."""
    if (text is None) == (image is None):
        raise InputError("give either a text or --image")
    if (sensitive and image) or (region and text):
        raise InputError("--sensitive is for a text, --region for an --image")
    if text is not None:
        asked = _stdin_text() if text == "-" else text
        spans = [_span(each) for each in sensitive or ()]
        answer = client.explain(model, asked, label, version, sensitive=spans)
    elif image is not None:
        answer = client.explain_image(model, read_image(image, region), label, version)
    _print(as_json, {"model": model, **asdict(answer)}, render.explanation_view(answer))


@app.command()
@with_client
def summarize(
    client: Client,
    model: Model,
    file: Annotated[
        Path | None, typer.Option(help="Read the texts from this UTF-8 file, one per line.")
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="The texts, or - to read them from stdin, one per line."),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            help="What to tell: labels, attention or attribution; can be repeated. The less, the "
            "smaller the noise. Default: labels and attention."
        ),
    ] = None,
    by_label: Annotated[
        bool, typer.Option("--by-label", help="Tell the means for the texts of each label, too.")
    ] = False,
    word: Annotated[
        list[str] | None,
        typer.Option(
            help="A word to tell the means of, beside the types of personal data; can be repeated."
        ),
    ] = None,
    cap: Annotated[
        float | None,
        typer.Option(
            help="The most that one text may add to the means, from 0.01 to 1; noise is "
            "proportional to it. Do not choose it by looking at the texts. Default: 0.25."
        ),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            help="16 to 128 characters that nobody can guess. The same command under the same id "
            "gets the same summary for nothing. Default: a new one."
        ),
    ] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Print what many texts have in common: label counts, and on what the answers rest on average.

    All numbers have noise, so that no single text shows in them; your privacy budget is charged for
    that. The number of texts and the words are told as they are.
    """
    asked = _read_texts(texts or [], file)
    found = client.summarize(
        model,
        asked,
        figure or ("labels", "attention"),
        by_label=by_label,
        words=word or (),
        cap=cap,
        version=version,
        request_id=request_id,
    )
    _print(as_json, {"model": model, **asdict(found)}, render.summary_view(found))


@app.command()
@with_client
def audit(
    client: Client,
    model: Model,
    file: Annotated[
        Path,
        typer.Option(
            help="The rows to audit: a .jsonl, .csv or .tsv file with a column text and, if known, "
            "label, spans (personal data, as a JSON list with start, end and entity_type) and "
            "member (true if the model was trained on the row)."
        ),
    ],
    shadows: Annotated[
        Path | None,
        typer.Option(
            help="Folder of attnpriv shadows with shadow models of this model, for stronger "
            "membership attacks; the file must then hold all rows of their data, in its order."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write the figures to, as JSON.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most rows to ask about; they are drawn at random.")
    ] = 200,
    seed: Annotated[
        int, typer.Option(help="Seed of the sample of rows and of everything else that is drawn.")
    ] = 0,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Measure from outside what a model's answers give away, as far as the server's policy allows.

    The audit asks in your name and uses up what the server counts for you: each row is explained
    once, and predicted in many variants. What could not be measured is listed with the reason.
    Neither the screen nor the file shows a text. Ctrl-C ends the audit with what was measured.
    """
    rows = read_rows(file)
    answers_of_shadows = None if shadows is None else read_shadow_answers(shadows)
    if out is not None:
        _check_other(out, file)
        with _writing(out):
            replaceable(out)  # only checks: an unwritable file should not show up after the audit
    asked = min(limit, len(rows))
    complain(
        f"asking for up to {asked + 1} explanations, and for predictions of {asked} rows and their "
        "variants; if the server draws answers, each of them is charged to your privacy budget"
    )
    with _interruptible(), stage_bars() as progress:
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
            shadows=answers_of_shadows,
        )
    value = to_json(found)
    try:
        if out is not None:
            _write_json(out, value)
    finally:  # a full disk must not lose what was measured
        _print(as_json, value, audit_view(found), err=out is not None and _is_stdout(out))
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
@with_client
def models(
    client: Client,
    name: Annotated[
        str | None, typer.Argument(help="Show the card of this model instead of the list.")
    ] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """List the models of the server, or show the card of one model."""
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
    model: Annotated[
        str | None, typer.Argument(help="Ask about this model only. Default: the whole server.")
    ] = None,
) -> None:
    """Say whether the server, or one model, answers: exit code 0 if it does, 1 if not."""
    try:
        state = "serving" if client.health(model) else "not serving"
    except (UnavailableError, DeadlineExceededError) as error:
        state = f"unreachable: {error}"
    sys.stdout.write(f"{render.printable(state)}\n")
    if state != "serving":
        raise typer.Exit(1)


def _span(option: str) -> SensitiveSpan:
    found = _SPAN.fullmatch(option)
    if found is None:
        raise InputError(f"expected --sensitive START:END:TYPE, got {option!r}")
    return SensitiveSpan(int(found[1]), int(found[2]), found[3])


def _refuse_beside_images(texts: object, file: object, output: object) -> None:
    if texts or file or output:
        raise InputError("give either texts or --image, and no --file or --output with images")


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
    """Write the output and return its number of lines; InputError if texts were refused."""
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
            f"{state.refused} of {state.lines} lines in {output} hold an error instead of a "
            f"prediction; the first: {state.first_refusal}"
        )
    return state.lines


def _check_other(output: Path, file: Path) -> None:
    with suppress(OSError):  # a file that cannot be read is refused when it is opened
        if output.samefile(file):
            raise InputError(f"cannot write the output to {file}, which is the input")


@contextmanager
def _interruptible() -> Iterator[None]:
    """End in order after Ctrl-C, with a line on how to continue, and after ``| head``."""
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
            f"expected a text in each line of {name}, line {number} has no visible character"
        )
    return line


@contextmanager
def _open_lines(texts: Sequence[str], file: Path | None) -> Iterator[Lines]:
    """The lines of the file, or of stdin if the only text is a dash."""
    if file is None and list(texts) == ["-"]:
        yield Lines(_stdin(), "stdin")
    elif file is None or texts:
        raise InputError("give either texts, or - to read stdin, or --file, and only one of these")
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
        raise InputError(f"invalid UTF-8 in stdin at byte {error.start}") from None
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
    """Whether the path is where this command prints, such as /dev/stdout."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write all of it or nothing. Only the owner may read it, as the figures are private."""
    content = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    with _writing(path):
        replace_file(path, content.encode(), 0o600)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
