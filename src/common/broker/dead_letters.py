"""What is noted on a message when it is moved to the dead letters."""

REASON_LIMIT = 2000


def dead_letter_headers(queue: str, reason: str) -> dict[str, str]:
    """Return the headers of a dead letter; the reason is cut short and cleaned so that every backend can store it."""
    clean = reason[:REASON_LIMIT].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return {"reason": clean, "queue": queue}
