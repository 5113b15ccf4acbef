from __future__ import annotations

from hypothesis import settings

# The machine may be busy, so no deadline; the same examples each time.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
