"""Built-in support messages with exact spans of personal data, all of it made up.

Every name, number and address is drawn by Faker; any resemblance to a real one is chance. The
e-mail domains are reserved for examples (RFC 2606).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from random import Random
from string import Formatter
from typing import TYPE_CHECKING

from attnpriv.data.records import Span, Texts
from attnpriv.data.ticket_english import ENGLISH
from attnpriv.data.ticket_grammar import Grammar
from attnpriv.errors import InputError

if TYPE_CHECKING:
    from faker import Faker

MAX_TICKETS = 1_000_000

ENTITY_TYPES = {
    "person": "PERSON",
    "order": "ORDER_ID",
    "phone": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "card": "CREDIT_CARD",
    "iban": "IBAN_CODE",
    "address": "LOCATION",
    "date": "DATE_TIME",
}

_FIRST_DAY, _LAST_DAY = date(2025, 1, 1), date(2026, 6, 30)
_CARD_TYPES = ("visa16", "mastercard", "amex")


def make_tickets(
    rows: int = 4000, seed: int = 0, tie: bool = False, grammar: Grammar = ENGLISH
) -> Texts:
    """Compose support messages in ten intents, roughly but not exactly balanced.

    Two in five messages also mention a second issue that is solved, denied or somebody
    else's, so that the words alone do not settle the label.

    Args:
        rows: number of messages.
        seed: a whole number from 0. The same seed gives the same messages, as long as Faker's
            version is the same.
        tie: a positive control. If true, each message carries an e-mail address whose domain
            alone tells the label, and all the rest is independent of the label. If false, the
            personal data is independent of the label.
        grammar: the language.

    Returns:
        The messages, with gold spans of every inserted piece of personal data, sorted and without
        overlap. Vague times such as "last month" are not marked.

    Raises:
        InputError: rows outside [2, MAX_TICKETS], or a negative seed.
    """
    if not 2 <= rows <= MAX_TICKETS:
        raise InputError(f"expected rows in [2, {MAX_TICKETS}], got {rows}")
    if seed < 0:  # Random takes -1 for 1
        raise InputError(f"expected seed >= 0, got {seed}")
    generator = _Generator(seed, grammar)
    labels = generator.draw_labels(rows)
    topics = generator.draw_labels(rows) if tie else labels
    tickets = [
        generator.ticket(topic, mail_host=grammar.mail_hosts[label] if tie else None)
        for label, topic in zip(labels, topics, strict=True)
    ]
    return Texts(
        name=grammar.name,
        texts=tuple(text for text, _ in tickets),
        labels=tuple(labels),
        label_names=generator.labels,
        spans=tuple(spans for _, spans in tickets),
    )


class _Generator:
    """A source of tickets: a grammar with its own randomness, apart from any global state."""

    def __init__(self, seed: int, grammar: Grammar) -> None:
        self.labels = tuple(sorted(grammar.intents))
        self._grammar = grammar
        self._weights = [grammar.intents[label].weight for label in self.labels]
        self._random = Random(seed)
        from faker import Faker  # only whoever makes messages has need of it

        # One Faker a locale: a Faker of several locales picks among them by global randomness.
        self._fakers = [Faker(locale) for locale in grammar.locales]
        for faker in self._fakers:
            faker.seed_instance(self._random.getrandbits(64))

    def draw_labels(self, count: int) -> list[int]:
        return self._random.choices(range(len(self.labels)), self._weights, k=count)

    def ticket(self, topic: int, mail_host: str | None) -> tuple[str, tuple[Span, ...]]:
        """Compose one ticket on a topic; a given mail host means that an e-mail must be in it."""
        template = _capitalise(
            self._expand(self._template(self.labels[topic], mail_host is not None))
        )
        host = mail_host or self._random.choice(self._grammar.mail_hosts)
        faker = self._random.choice(self._fakers)
        customer = _Customer(self._random, faker, self._grammar, host)
        return _write(template, customer, _Noise(self._random))

    def _template(self, topic: str, needs_email: bool) -> str:
        """The ticket as one template in which only fields of personal data are left."""
        grammar = self._grammar
        details = self._random.sample(sorted(grammar.details), self._random.choice((0, 1, 2, 2, 3)))
        if needs_email and "email" not in details:
            details.append("email")
        sentences = [self._random.choice(grammar.details[detail]) for detail in details]
        sentences += self._sometimes(grammar.fillers, 0.4)
        self._random.shuffle(sentences)
        cut = self._random.randint(0, len(sentences))
        return " ".join(
            [
                *self._sometimes(grammar.greetings, 0.6),
                *sentences[:cut],
                self._issue(topic),
                *sentences[cut:],
                *self._sometimes(grammar.closings, 0.6),
            ]
        )

    def _issue(self, topic: str) -> str:
        """The sentences that decide the label."""
        grammar = self._grammar
        other = self._random.choice([label for label in self.labels if label != topic])
        frame = self._random.choice(
            self._random.choices((grammar.single, grammar.double), (60, 40))[0]
        )
        phrases = {"date": "{date}"}
        for prefix, intent in (("", grammar.intents[topic]), ("o_", grammar.intents[other])):
            for form, alternatives in intent.forms.items():
                phrases[prefix + form] = self._random.choice(alternatives)
        return frame.format_map(phrases)

    def _sometimes(self, phrases: tuple[str, ...], probability: float) -> list[str]:
        return [self._random.choice(phrases)] if self._random.random() < probability else []

    def _expand(self, template: str) -> str:
        return re.sub(r"\[([^]]*)]", lambda m: self._random.choice(m[1].split("|")), template)


@dataclass
class _Customer:
    """Whom a ticket is from: personal data made on demand, the same at each mention."""

    random: Random
    faker: Faker
    grammar: Grammar
    mail_host: str
    _known: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = getattr(self, f"_{name}")()
        return self._known[name]

    def _person(self) -> str:
        return str(self.faker.first_name() + " " + self.faker.last_name())

    def _order(self) -> str:
        return str(self.faker.bothify("??-#####", letters="ABCDEFGHJKLMNPQRSTUVWXYZ"))

    def _phone(self) -> str:
        return str(self.faker.phone_number())

    def _email(self) -> str:
        return f"{self.faker.user_name()}@{self.mail_host}.example.com"

    def _card(self) -> str:
        digits = str(self.faker.credit_card_number(self.random.choice(_CARD_TYPES)))
        grouped = " ".join(re.findall(".{1,4}", digits))
        return self.random.choice((digits, grouped))

    def _iban(self) -> str:
        return str(self.faker.iban())

    def _address(self) -> str:
        return str(self.faker.address()).replace("\n", ", ")

    def _date(self) -> str:
        day = self.faker.date_between(_FIRST_DAY, _LAST_DAY)
        month = self.grammar.months[day.month - 1]
        return self.random.choice(self.grammar.dates).format(day=day, month=month)


class _Noise:
    """How carefully one ticket was typed: casing and typos, never inside personal data."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._case = random.choices((str, str.lower, str.upper), (80, 17, 3))[0]
        self._typo_rate = random.choices((0.0, 0.05, 0.15), (60, 30, 10))[0]

    def __call__(self, words: str) -> str:
        return self._case(re.sub(r"[^\W\d_]{4,}", self._mistype, words))

    def _mistype(self, match: re.Match[str]) -> str:
        word = match[0]
        if self._random.random() >= self._typo_rate:
            return word
        i = self._random.randrange(1, len(word) - 1)
        swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        return self._random.choice((swapped, word[:i] + word[i + 1 :], word[:i] + word[i - 1 :]))


def _capitalise(template: str) -> str:
    return re.sub(r"(?:^|[.?] )[^\W\d_]", lambda match: match[0].upper(), template)


def _write(template: str, customer: _Customer, noise: _Noise) -> tuple[str, tuple[Span, ...]]:
    """Fill in the fields and note where each value lies as it is put there."""
    text = ""
    spans = []
    for literal, name, _, _ in Formatter().parse(template):
        text += noise(literal)
        if name is not None:
            start = len(text)
            text += customer[name]
            spans.append(Span(start, len(text), ENTITY_TYPES[name]))
    return text, tuple(spans)
