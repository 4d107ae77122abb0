"""`python -m disbench` is the command `disbench`."""

from disbench.cli.main import main

if __name__ == "__main__":
    main()
