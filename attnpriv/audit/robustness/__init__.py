"""Attacks on the input: how little it takes to change the answer."""

SCALES = (0.01, 0.02, 0.05)  # radii of attacks on embeddings, in deviations of a coordinate
EDITS = (1, 2, 3, 5, 10)  # numbers of edits of a text that are reported
TEXT_EDITS = (1, 2, 3, 5)  # of words, which attacks on texts make
