"""attnpriv: train, harden, serve and audit attention models without leaking the people in the data.

Importing this package loads nothing heavy; torch arrives with ``attnpriv.attention`` and above.
"""

__version__ = "0.1.0"
