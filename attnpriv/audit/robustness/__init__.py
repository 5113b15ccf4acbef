"""Attacks on the input: how little it takes to change the answer."""

SCALES = (0.01, 0.02, 0.05)  # radii of attacks on embeddings, in deviations of a coordinate
