"""`python -m disbench` is the command `disbench`."""

from disbench.cli import main

if __name__ == "__main__":
    main()
