"""What a user would pick instead: each peer as its own documentation says to run it durably.

Every module is a program of the environment `bench/.venv`, which knows nothing of Chiffon: `prepare` makes what it
needs, `worker` works until it is stopped, `produce` and `latency` hand in tasks and print one line of JSON.
"""
