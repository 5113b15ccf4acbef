"""The ``attnpriv-server`` command."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from attnpriv.errors import InputError
from attnpriv_server.policy import Limits, Policy, load_policy

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command; bad input is one line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


@app.command()
def serve(
    models: Annotated[Path, typer.Option(help="Folder of run folders; all of them are served.")],
    policy: Annotated[
        Path | None, typer.Option(help="TOML file: what answers may reveal. Default: the safe one.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 takes a free one.")
    ] = "127.0.0.1:50051",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain text beyond this machine.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one forward pass.")] = 1,
    max_message_bytes: Annotated[
        int, typer.Option(min=1, help="Largest message that is read.")
    ] = Limits.message_bytes,
) -> None:
    """Serve models over gRPC until SIGTERM or SIGINT.

    Prints one line, `listening on HOST:PORT`, once it answers; logs JSON lines on stderr.
    """
    host = _check_listen(listen, insecure)
    _configure_logging()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines would show addresses
    rules = Policy() if policy is None else load_policy(policy)
    # Only now, so that --help and a wrong option answer at once.
    import torch

    from attnpriv_server.core import Core, load_models
    from attnpriv_server.wire import serve_until_stopped

    torch.set_num_threads(threads)
    core = Core(load_models(models), rules, Limits(message_bytes=max_message_bytes))
    asyncio.run(
        serve_until_stopped(core, listen, lambda port: typer.echo(f"listening on {host}:{port}"))
    )


def _check_listen(listen: str, insecure: bool) -> str:
    """The host part of the address; refuses plain text beyond this machine."""
    found = re.fullmatch(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})", listen)
    if found is None or int(found["port"]) > 65535:
        raise InputError(f"expected --listen HOST:PORT, got {listen!r}")
    if not (insecure or _is_loopback(found["host"])):
        raise InputError(
            f"refusing to listen on {found['host']} without encryption and authentication; "
            "listen on 127.0.0.1, or pass --insecure to accept that texts travel in the clear"
        )
    return found["host"]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _JsonLines(logging.Formatter):
    """One JSON object a record: the fields that our own code set, and never a message.

    A message of another library may quote a text, so of it only its origin is written.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **getattr(record, "fields", {"at": f"{record.filename}:{record.lineno}"}),
        }
        return json.dumps(line)


def _configure_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("attnpriv_server").setLevel(logging.INFO)
