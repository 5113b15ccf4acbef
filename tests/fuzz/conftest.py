"""Not for pytest: ``make fuzz`` runs this folder."""

collect_ignore_glob = ["*.py"]
