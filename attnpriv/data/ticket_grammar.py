"""What the tickets of one language are made of; the generation in ``tickets`` is the same for all.

In phrases, ``[a|b]`` stands for one of the alternatives, ``{field}`` for another phrase or a piece
of personal data. They start in lower case unless the language wants a capital there, and are
capitalised where a sentence begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Intent:
    """What one kind of customer says.

    Attributes:
        weight: how frequent the intent is, relative to the others.
        forms: phrases by their grammatical form, as the frames of the language want them. All
            intents of a language have the same forms.
    """

    weight: int
    forms: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Grammar:
    """How customers write in one language.

    Attributes:
        name: of the data set.
        locales: Faker's; each customer's personal data is of one of them.
        mail_hosts: one for each intent, so that with ``tie`` the host tells the label.
        months: their names, January first.
        dates: how customers write a ``day``; ``month`` is its month's name.
        intents: by label.
        single: sentences about one intent, with its forms as fields.
        double: sentences that also mention another, whose forms begin with ``o_``. It is solved,
            denied or somebody else's, and only the structure tells.
        details: sentences about a piece of personal data, by its field.
        greetings: that may begin a ticket.
        fillers: sentences that say nothing about the label.
        closings: that may end a ticket.
    """

    name: str
    locales: tuple[str, ...]
    mail_hosts: tuple[str, ...]
    months: tuple[str, ...]
    dates: tuple[str, ...]
    intents: Mapping[str, Intent]
    single: tuple[str, ...]
    double: tuple[str, ...]
    details: Mapping[str, tuple[str, ...]]
    greetings: tuple[str, ...]
    fillers: tuple[str, ...]
    closings: tuple[str, ...]
