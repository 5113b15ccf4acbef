"""MkDocs hook: one page for each command, made from the command's own help."""

from __future__ import annotations

import re
from importlib import import_module

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

COMMANDS = {
    "attnpriv": "attnpriv.cli",
    "attnpriv-server": "attnpriv_server.cli",
    "attnpriv-client": "attnpriv_client.cli",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, so that no help text is written twice."""
    for name, module in COMMANDS.items():
        path = f"reference/commands/{name}.md"
        files.append(File.generated(config, path, content=page(name, module)))
    return files


def page(name: str, module: str) -> str:
    """The help of a command and all its subcommands as Markdown, after what its module says."""
    loaded = import_module(module)
    command = typer.main.get_command(loaded.app)
    context = typer.Context(command, info_name=name)
    text = get_docs_for_click(obj=command, ctx=context, name=name)
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text)  # cut off after 45 characters
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{loaded.__doc__}\n{rest}"
