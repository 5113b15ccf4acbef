"""Options that several commands have."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attnpriv.errors import InputError
from attnpriv_client.client import Client
from attnpriv_client.connection import DEFAULT_ATTEMPTS, DEFAULT_TIMEOUT, Tls

Model = Annotated[str, typer.Option(help="Name of the model; `models` lists them.")]
Version = Annotated[str | None, typer.Option(help="Version of the model. Default: the newest one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

TOKEN_VARIABLE = "ATTNPRIV_TOKEN"


def connect(
    target: Annotated[str, typer.Option(help="HOST:PORT of the server.")],
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds to wait for an answer.")
    ] = DEFAULT_TIMEOUT,
    attempts: Annotated[
        int, typer.Option(min=1, help="How often to try within that time; 1 tries once.")
    ] = DEFAULT_ATTEMPTS,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt. Implied by the next three.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Authorities to trust, in PEM. Default: gRPC's own list.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="The client's own certificate, in PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, in PEM.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the token to show. Default: what {TOKEN_VARIABLE} holds."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the token without TLS all the same.")
    ] = False,
) -> Client:
    """A client as the options say.

    A token has no option of its own: whoever lists processes reads command lines.
    """
    use_tls = tls or any((tls_ca, tls_certificate, tls_key))
    return Client(
        target,
        timeout,
        token=_token(token_file),
        tls=Tls(tls_ca, tls_certificate, tls_key) if use_tls else None,
        insecure=insecure,
        attempts=attempts,
    )


def with_client(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``connect``, and for its first argument the client."""
    connection = inspect.signature(connect, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = {name: values.pop(name) for name in connection}
        with connect(**options) as client:
            command(client, **values)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=each.KEYWORD_ONLY) for each in (*own, *connection.values())]
    )
    return run


def _token(file: Path | None) -> str | None:
    if file is not None:
        return _only_token(_content(file), str(file))
    value = os.environ.get(TOKEN_VARIABLE)
    return None if value is None else _only_token(value, TOKEN_VARIABLE)


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"expected UTF-8 in {file}") from None


def _only_token(content: str, source: str) -> str:
    """The token without the line end that files and shells leave behind it; errors do not show it.

    Raises:
        InputError: there is none, or something beside it.
    """
    words = content.split()
    if len(words) != 1:
        found = "white space inside" if words else "nothing"
        raise InputError(f"expected one token and nothing else in {source}, found {found}")
    return words[0]
