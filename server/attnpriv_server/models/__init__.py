"""The models of a server: where they are on disk, what is listed of them, and what is in memory.

``docs/models.md`` says it for operators.
"""
