"""``python -m attnpriv.cli``: the command in the form that torchrun needs."""

from attnpriv.cli import main

if __name__ == "__main__":
    main()
