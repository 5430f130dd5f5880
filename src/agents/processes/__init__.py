"""The processes of programs: a keeper owns each program with all that it starts, a guardian forks the keepers."""
