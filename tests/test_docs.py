"""The pages for people: what they link to, the files they name and the commands they show exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from attnpriv.cli import app
from attnpriv_client.cli import app as client_app
from attnpriv_server.cli import app as server_app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = [
    path
    for folder in ("attnpriv", "server", "client", "benchmarks", "examples", "proto", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".proto", ".toml", ".yml"}
]
COMMANDS = {"attnpriv": app, "attnpriv-server": server_app, "attnpriv-client": client_app}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]

    assert [target for target in inside if not (page.parent / target).exists()] == []


def test_the_pages_that_code_names_exist() -> None:
    named = {
        (relative(path), name)
        for path in CODE
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }

    assert ("attnpriv/cli/gate.py", "docs/gates.md") in named
    assert [each for each in sorted(named) if not (ROOT / each[1]).is_file()] == []


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that begin with a language, or with none."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_on_a_page_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def shown() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours on the pages, without what the shell takes."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                if line.partition(" ")[0] in COMMANDS:
                    words = shlex.split(line, comments=True)
                    yield relative(page), [word for word in words if word not in {"&", "..."}]


SHOWN = list(shown())


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[" ".join(words) for _, words in SHOWN])
def test_options_on_the_pages_exist(page: str, words: list[str]) -> None:
    command = typer.main.get_command(COMMANDS[words[0]])
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words[1:]:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
            known |= {option for parameter in command.params for option in parameter.opts}

    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_commands_are_shown_from_every_part() -> None:
    assert {words[0] for _, words in SHOWN} == set(COMMANDS)
    assert len(SHOWN) > 20


# Decision records and the benchmark log tell of the code as it was.
CURRENT = [page for page in PAGES if page.parent.name != "adr" and page.stem != "benchmark-log"]


@pytest.mark.parametrize("page", CURRENT, ids=relative)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    folders = "attnpriv|benchmarks|client|deploy|examples|proto|server|tests"
    named = re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text(encoding="utf-8"))

    missing = [name for name in named if not (ROOT / name).exists()]
    assert [name for name in missing if "NAME" not in name] == []
