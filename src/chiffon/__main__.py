"""`python -m chiffon` is the `chiffon` command."""

from chiffon.cli.app import main

if __name__ == "__main__":
    main()
