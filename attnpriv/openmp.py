"""Imported before torch by commands: OpenMP's threads wait asleep.

libgomp's threads spin for milliseconds at the end of each parallel region. Beside a busy neighbour,
or under a CPU quota, that is the time in which the thread they wait for would have run, and a step
of training has hundreds of regions. libgomp reads how to wait when torch loads it, and never again:
a library that is imported after torch has no say, so only commands choose. What the user has set
stands.
"""

import os

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

if not any(name in os.environ for name in CHOICES):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
