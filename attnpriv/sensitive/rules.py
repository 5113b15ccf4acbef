"""A file of one's own rules: what else to hide, what to show, and which language model to use."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from attnpriv.errors import InputError
from attnpriv.sensitive.names import find_model

NO_MODEL = "none"
CONTEXT = 50  # characters on each side in which a context word counts

Word = Annotated[str, Field(min_length=1)]
EntityType = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Recognizer(_Strict):
    """One kind of personal data with a pattern.

    Attributes:
        entity_type: what it is called, such as ``ORDER_ID``.
        patterns: regular expressions; case is ignored.
        context: where given, a match counts only within ``CONTEXT`` characters of such a word.
        score: from 0 to 1; where findings overlap, the higher one names the stretch.
    """

    entity_type: EntityType
    patterns: Annotated[list[Word], Field(min_length=1)]
    context: list[Word] = []
    score: Annotated[float, Field(gt=0, le=1)] = 0.6

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, patterns: list[str]) -> list[str]:
        import regex

        for pattern in patterns:
            try:
                regex.compile(pattern)
            except regex.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns


class Rules(_Strict):
    """What a detector is to do beside its own patterns.

    Attributes:
        language_model: finds names; ``none`` leaves them in sight.
        allow: texts that are shown although a pattern or the model finds exactly them, whatever the
            case, and with them what is found within; ``deny`` and ``recognizers`` come before it.
        deny: by type, words that are always hidden, whatever the case.
        recognizers: further kinds of personal data.
    """

    language_model: Literal["en_core_web_sm", "en_core_web_md", "none"] = "en_core_web_sm"
    allow: list[Word] = []
    deny: dict[EntityType, Annotated[list[Word], Field(min_length=1)]] = {}
    recognizers: list[Recognizer] = []

    @property
    def detector_name(self) -> str:
        """How a detector with these rules is called in reports."""
        return f"presidio-{'patterns' if self.language_model == NO_MODEL else self.language_model}"

    def check_model(self) -> None:
        """See that the language model is there, without loading it.

        Raises:
            InputError: it is not installed, or is not the one that is pinned.
        """
        if self.language_model != NO_MODEL:
            find_model(self.language_model)

    def recognizers_of_words(self) -> list[Any]:
        """``deny`` and ``recognizers`` with Presidio's interface."""
        from attnpriv.sensitive.presidio import PatternRecognizer

        denied = [PatternRecognizer(kind, deny_list=words) for kind, words in self.deny.items()]
        return [*denied, *map(_recognizer, self.recognizers)]


def load_rules(path: Path) -> Rules:
    """Read rules from a TOML file.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown name or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read detection rules {path}: {error}") from error
    try:
        return Rules.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"detection rules {path}: {where}: {first['msg']}") from error


def _recognizer(rule: Recognizer) -> Any:
    from attnpriv.sensitive.presidio import Pattern, PatternRecognizer

    class InContext(PatternRecognizer):
        """Keeps what stands near a context word."""

        def analyze(self, text: str, *args: Any, **options: Any) -> list[Any]:
            found = super().analyze(text, *args, **options)
            return [each for each in found if _is_near(rule.context, text, each.start, each.end)]

    patterns = [Pattern(f"of {rule.entity_type}", each, rule.score) for each in rule.patterns]
    return InContext(rule.entity_type, patterns=patterns)


def _is_near(words: list[str], text: str, start: int, end: int) -> bool:
    around = text[max(start - CONTEXT, 0) : end + CONTEXT].casefold()
    return not words or any(word.casefold() in around for word in words)
