"""Names from outside, such as those of folders and classes, in a line of a text."""


def printable(text: str) -> str:
    r"""The text in one line, with a mark for each character that cannot be shown.

    >>> printable("a\nb\x1b[31m\ud800")
    'a�b�[31m�'
    """
    return "".join(character if character.isprintable() else "�" for character in text)
