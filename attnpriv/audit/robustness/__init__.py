"""Attacks on the input: how little it takes to change the answer."""

SCALES = (0.01, 0.02, 0.05)  # radii of attacks on embeddings, in deviations of a coordinate
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of least radii, as shares of the right answers
EDITS = (1, 2, 3, 5, 10)  # numbers of edits of a text that are reported
TEXT_EDITS = (1, 2, 3, 5)  # of words, which attacks on texts make
LEVELS = (8, 16, 32, 64)  # L∞ radii of attacks on pixels, of 255
LENGTHS = (0.5, 1.0, 2.0)  # L2 radii of attacks on images, where white is 1
