"""What hardening attention costs in utility, and what it buys: ``python -m`` this package."""
