"""The ``attnpriv-server`` command."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnpriv import openmp  # noqa: F401  # before anything loads torch
from attnpriv.command import run_command
from attnpriv.errors import InputError
from attnpriv_server.access import new_token
from attnpriv_server.address import Address
from attnpriv_server.assembly import Rulebook, Settings, opened, read_detection
from attnpriv_server.budget.command import budget_app
from attnpriv_server.cores import usable_cores
from attnpriv_server.domain import Precision
from attnpriv_server.policy_command import policy_app
from attnpriv_server.queueing import Batching

if TYPE_CHECKING:
    import grpc

    from attnpriv_server.core import Core

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(budget_app, name="budget")
app.add_typer(policy_app, name="policy")

WORKERS = 2  # more pay on more cores, and take memory each
MOST_THREADS = 1024  # where so many cannot be had, that shows in whatever needs memory next


def main() -> None:
    """Run the command; bad input is one line on stderr and exit code 2."""
    run_command(app)


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    models: Annotated[
        Path | None, typer.Option(help="Folder of run folders, all of which are served. Required.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: what answers may reveal, and to whom; read again when it changes. "
            "Default: the safe policy."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            envvar="ATTNPRIV_BUDGET",
            help="Database of the privacy budget, sqlite:///PATH or postgresql://USER@HOST/NAME; "
            "needed where the policy has answers drawn.",
        ),
    ] = None,
    detection: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: what counts as personal data beside what is found anyway. "
            "Default: none (docs/detection.md)."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen on; port 0 picks a free port.")
    ] = "127.0.0.1:50051",
    principals: Annotated[
        Path | None,
        typer.Option(help="TOML file: who may ask for what. Default: anyone, anything."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file with the server's certificate chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate's private key.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of authorities; clients must show a certificate by one of them."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Let other machines connect without TLS or authentication."
        ),
    ] = False,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of predictions; auto is bfloat16 where the CPU computes in it natively."
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of processes that compute predictions; 0 leaves that to the server's own. "
            "Default: 2, or 0 where CPU affinity or a CPU quota leaves one core.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Number of threads for one forward pass.")
    ] = 1,
    token_budget: Annotated[
        int, typer.Option(min=1, help="Most tokens in a batch of several texts.")
    ] = Batching.token_budget,
    queue_rows: Annotated[
        int, typer.Option(min=1, help="Most texts that may wait; requests beyond that are refused.")
    ] = Batching.capacity,
    memory_budget: Annotated[
        int | None, typer.Option(min=1, help="Most megabytes of loaded models. Default: no limit.")
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(help="TOML file: how large requests may be, and how many at once."),
    ] = None,
    operations_listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT for /metrics, /livez and /readyz. Default: not served."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds to finish calls under way once told to stop.")
    ] = 30.0,
) -> None:
    """Serve models over gRPC until SIGTERM or SIGINT.

    Prints one line, `listening on HOST:PORT`, once it answers. Logs JSON lines on stderr.
    """
    if context.invoked_subcommand is not None:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    if models is None:
        raise InputError("--models is required: the folder of run folders to serve")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines would show addresses
    from attnpriv_server.transport import check_exposure

    address, operators = _addresses(listen, operations_listen)
    settings = Settings(
        models,
        policy,
        principals,
        budget,
        detection,
        limits,
        precision,
        threads,
        memory_budget,
        Batching(token_budget=token_budget, capacity=queue_rows),
    )
    book = Rulebook.read(settings)
    credentials = _credentials(tls_certificate, tls_key, tls_client_ca)
    authenticated = book.access.required or tls_client_ca is not None
    check_exposure(address, credentials is not None, authenticated, insecure)
    for each in filter(None, (address, operators)):
        each.check_bindable()
    # Only now, so that --help and most wrong options answer at once.
    rules = read_detection(settings)
    gc.disable()  # else a start spends a second on looking through what it has imported so far

    async def run(core: Core) -> None:
        from attnpriv_server.operations import Operations
        from attnpriv_server.wire import Server, serve_until_stopped

        server = Server(core, str(address), credentials)
        operations = Operations(core.telemetry, server.ready)
        if operators is not None:
            await operations.start(operators)
        await serve_until_stopped(
            server,
            grace,
            lambda port: typer.echo(f"listening on {replace(address, port=port)}"),
        )
        await operations.stop()

    processes = default_workers() if workers is None else workers
    with opened(settings, book, rules, processes) as core:
        asyncio.run(run(core))


def default_workers() -> int:
    """``WORKERS``, or none where this process may use a single core."""
    return WORKERS if usable_cores() > 1 else 0


def _addresses(listen: str, operations_listen: str | None) -> tuple[Address, Address | None]:
    address = Address.parse(listen, "--listen")
    if operations_listen is None:
        return address, None
    operators = Address.parse(operations_listen, "--operations-listen")
    if operators == address and address.port != 0:
        raise InputError(f"--operations-listen and --listen must differ, both are {address}")
    return address, operators


def _end_at_once(*_: object) -> None:
    """End the process during its start: nothing is served yet, and the workers end with it.

    The first process of a container gets only the signals that it handles.
    """
    os._exit(0)


def _credentials(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> grpc.ServerCredentials | None:
    from attnpriv_server.transport import server_credentials

    if (certificate is None) != (key is None):
        raise InputError("--tls-certificate and --tls-key must be given together")
    if certificate is None or key is None:
        if client_ca is not None:
            raise InputError("--tls-client-ca needs --tls-certificate and --tls-key")
        return None
    return server_credentials(certificate, key, client_ca)


@app.command()
def token() -> None:
    """Make a bearer token. Print it, and the line for the principals file that lets it in."""
    secret, digest = new_token()
    typer.echo(secret)
    typer.echo(f'tokens = [{{ sha256 = "{digest}" }}]')
