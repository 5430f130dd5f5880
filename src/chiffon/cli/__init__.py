"""The `chiffon` command: one file for each command, imported only when it is called."""
