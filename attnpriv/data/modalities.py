"""The kinds of records that models read: a closed set."""

from __future__ import annotations

from attnpriv.data.text import Text

AnyModality = Text
