"""Not for pytest: ``make soak`` runs this folder."""

collect_ignore_glob = ["*.py"]
