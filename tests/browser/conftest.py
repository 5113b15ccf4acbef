"""Not for pytest: ``make browser`` runs this folder."""

collect_ignore_glob = ["*.py"]
