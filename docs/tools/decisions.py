"""MkDocs hook: every decision record is in the navigation and in the table of its first page."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

PARENT, SECTION = "Reference", "Decisions"
INDEX = "adr/index.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the records to their section of the navigation, in the order of their numbers."""
    (parent,) = (item[PARENT] for item in config.nav or () if PARENT in item)
    (section,) = (item[SECTION] for item in parent if SECTION in item)
    section += [f"adr/{path.name}" for path in records(config)]
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Append a list of the records to the first page of the section."""
    if page.file.src_uri != INDEX:
        return markdown
    return (
        markdown + "\n" + "".join(f"- [{title(each)}]({each.name})\n" for each in records(config))
    )


def records(config: MkDocsConfig) -> list[Path]:
    """The files of the decision records."""
    return sorted(Path(config.docs_dir, "adr").glob("[0-9]*.md"))


def title(path: Path) -> str:
    """The heading of a record, with the full stop after its number escaped."""
    heading = path.read_text(encoding="utf-8").partition("\n")[0]
    return heading.removeprefix("# ").replace(".", "\\.", 1)
