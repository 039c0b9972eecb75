"""``python -m fastdat`` is ``fastdat``; torchrun starts it so."""

from fastdat.cli import main

if __name__ == "__main__":
    main()
