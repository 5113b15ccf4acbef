"""``python -m attnpriv.cli``: the command, in the form in which torchrun takes it."""

from attnpriv.cli import main

if __name__ == "__main__":
    main()
