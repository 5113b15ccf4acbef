"""Attacks on the input: how little it takes to change the answer."""

from attnpriv.audit.robustness.embedding import embedding_attacks

__all__ = ["embedding_attacks"]
