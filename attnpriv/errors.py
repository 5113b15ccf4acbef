"""What can go wrong, and whose fault it is.

::

    AttnprivError
    └── InputError              the caller's input is wrong: one line, exit code 2
        ├── RunFolderError      a run folder is missing, incomplete or does not match its manifest
        └── DetectionError      a text cannot be searched for personal data

Besides these, the system's own errors about a path escape, such as PermissionError; the commands
treat them as bad input. Anything else that escapes is a defect of attnpriv. Messages name the value
that was refused and what was expected; they never quote a record's text.
"""


class AttnprivError(Exception):
    """Base of the errors that the library defines for its callers.

    Not everything raised on purpose is one of them: a wrong type is a TypeError, the server ends
    requests with its own RefusedError, and the client has an error tree of its own.
    """


class InputError(AttnprivError, ValueError):
    """The input cannot be used; the message names the value and what was expected."""


class RunFolderError(InputError):
    """A run folder is missing, incomplete, or differs from its manifest."""


class DetectionError(InputError):
    """A text cannot be searched for personal data, so that nothing of it may be shown."""
