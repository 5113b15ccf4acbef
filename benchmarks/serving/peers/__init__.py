"""Other servers of the same run folder, one a file, each in an environment of its own.

Each is run as ``python -m benchmarks.serving.peers.NAME PORT`` and serves HTTP until SIGTERM. All
batch as they are made to, up to ``MAX_BATCH`` texts that wait up to ``MAX_WAIT`` seconds, and hand
every batch to ``benchmarks.serving.classifier``.
"""

# Larger batches of mixed lengths hold more padding, and are slower, not faster.
MAX_BATCH = 16
MAX_WAIT = 0.005
