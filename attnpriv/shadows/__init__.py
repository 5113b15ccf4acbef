"""Shadow models: trained like a given run, each on a random half of the data.

Attacks with them are in ``attnpriv.audit.leakage``, which also says what their folder holds.
"""

from attnpriv.shadows.training import has_begun, train_shadows

__all__ = ["has_begun", "train_shadows"]
