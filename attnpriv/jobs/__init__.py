"""Long work in pieces that other processes do: several of this machine, or those of a Ray cluster.

A piece gives bytes, and the same bytes wherever it is done. Whoever has the pieces done keeps what
is finished, so work that ends early goes on with what is left.
"""

from attnpriv.jobs.executor import Crew, Executor, Job, Note, Told
from attnpriv.jobs.processes import ProcessPool
from attnpriv.jobs.ray_cluster import RayCluster

__all__ = ["Crew", "Executor", "Job", "Note", "ProcessPool", "RayCluster", "Told"]
