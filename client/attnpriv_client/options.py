"""Options that several commands have."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attnpriv.command import help_of
from attnpriv.errors import InputError
from attnpriv_client.client import Client
from attnpriv_client.connection import DEFAULT_ATTEMPTS, DEFAULT_TIMEOUT, Tls

CONNECTION = "Connection"  # the panel of --help

Model = Annotated[
    str, typer.Option(help="Name of the model. attnpriv-client models lists the names.")
]
Version = Annotated[str | None, typer.Option(help="Version of the model. Default: the newest one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

TOKEN_VARIABLE = "ATTNPRIV_TOKEN"


def connect(
    target: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="The server to ask.", rich_help_panel=CONNECTION),
    ],
    timeout: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds to wait for an answer.", rich_help_panel=CONNECTION),
    ] = DEFAULT_TIMEOUT,
    attempts: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most attempts within that time, if trying again can help.",
            rich_help_panel=CONNECTION,
        ),
    ] = DEFAULT_ATTEMPTS,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Encrypt the connection. Any other --tls option implies it.",
            rich_help_panel=CONNECTION,
        ),
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the certificate authorities to trust. Default: those that gRPC "
            "trusts.",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the client's own certificate, if the server asks for one.",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the private key of that certificate.", rich_help_panel=CONNECTION
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the access token. Default: the environment variable "
            f"{TOKEN_VARIABLE}, if it is set.",
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Send the token even without TLS, where others on the network can read it.",
            rich_help_panel=CONNECTION,
        ),
    ] = False,
) -> Client:
    """Make the client that the options describe.

    There is no option for the token itself, since anyone who lists processes can read command
    lines.
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
    """Add the options of ``connect`` to a command, and pass it the client as first argument."""
    connection = inspect.signature(connect, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = {name: values.pop(name) for name in connection}
        with connect(**options) as client:
            command(client, **values)

    run.__doc__ = help_of(command)
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
        raise InputError(f"expected a token in UTF-8 in {file}, got other bytes") from None


def _only_token(content: str, source: str) -> str:
    """The token, without the line end that files and shells add; errors do not show it.

    Raises:
        InputError: there is no token, or something else beside it.
    """
    words = content.split()
    if len(words) != 1:
        found = "white space inside it" if words else "nothing"
        raise InputError(f"expected one token and nothing else in {source}, got {found}")
    return words[0]
