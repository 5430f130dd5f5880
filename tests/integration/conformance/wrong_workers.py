"""Workers that each get one thing wrong: the example, with a few words changed."""

from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "worker.py"


@dataclass(frozen=True)
class WrongWorker:
    """What is wrong with it, the case that must notice, and how its program differs from the example."""

    wrong: str
    case: str
    changes: tuple[tuple[str, str], ...]

    def program(self) -> str:
        text = EXAMPLE.read_text()
        for old, new in self.changes:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the example"
            text = text.replace(old, new)
        return text


REPORT = """        call(f"{job['id']}/{how}", 60, **own, **said)\n"""

WORK = """    how, said = work(job["payload"], why, report)\n"""

STRICT = """                told = json.load(answer)
                return answer.status, told if set(told) <= {"job", "cancelled", "id", "status"} else {}
"""

WRONG_WORKERS = (
    WrongWorker("says complete twice", "completes", ((REPORT, REPORT * 2),)),
    WrongWorker(
        "does the work twice",
        "once-in-order",
        ((WORK, WORK * 2),),
    ),
    WrongWorker("forgets what is retryable", "reports-failure", (('payload.get("retryable", False)', "False"),)),
    WrongWorker(
        "completes what it does not understand",
        "unknown-work",
        (('if do in ("succeed", "sleep"):', 'if do != "fail":'),),
    ),
    WrongWorker(
        "takes more types than it was told",
        "own-types",
        (("allowedTypes=[TYPE]", 'allowedTypes=[TYPE, TYPE + "_no"]'),),
    ),
    WrongWorker("asks without a pause", "idle", (("        time.sleep(0.3)\n", "        pass\n"),)),
    WrongWorker(
        "minds unknown fields",
        "unknown-fields",
        (("                return answer.status, json.load(answer)\n", STRICT),),
    ),
    WrongWorker(
        "never renews", "heartbeats", (("    while not why and not ended.wait(LEASE / 4):\n", "    while False:\n"),)
    ),
    WrongWorker("ignores a cancel", "cancelled", (('status != 200 or answer["cancelled"]', "status != 200"),)),
    WrongWorker(
        "works on when it cannot renew, and completes without the attempt",
        "lease-lost",
        (
            ('status != 200 or answer["cancelled"]', 'status == 200 and answer["cancelled"]'),
            ("**own, **said", "**said"),
        ),
    ),
    WrongWorker(
        "works on after 409",
        "refused-heartbeat",
        (('status != 200 or answer["cancelled"]', 'status == 200 and answer["cancelled"]'),),
    ),
    WrongWorker(
        "gives up for good when it is refused",
        "frozen",
        (
            ("                return error.code, {}\n", "                os._exit(1)\n"),
            # On a busy machine the answer that refuses it comes later than it waits.
            ('why.append("cancelled" if status == 200 else "lost")', "os._exit(1)"),
        ),
    ),
    WrongWorker(
        "does not start again after a crash",
        "killed",
        (("signal.signal(", 'os.mkdir(f"{__file__}.{WORKER}")\nsignal.signal('),),
    ),
    WrongWorker(
        "claims with another claimId when an answer was lost",
        "lost-claim",
        (('call("claim", 1e9,', 'call("claim", 0,'),),
    ),
    WrongWorker(
        "never repeats complete",
        "lost-complete",
        (("""call(f"{job['id']}/{how}", 60,""", """call(f"{job['id']}/{how}", 0,"""),),
    ),
    WrongWorker(
        "never repeats fail",
        "lost-fail",
        (("""call(f"{job['id']}/{how}", 60,""", """call(f"{job['id']}/{how}", 0,"""),),
    ),
    WrongWorker("takes 503 for an answer", "busy", (("500) < 500 and", "500) < 600 and"),)),
    WrongWorker("repeats without a pause", "away", (("pause = min(pause * 2, 5)", "pause = 0.0"),)),
    WrongWorker(
        "does not leave while it waits", "leaves-idle", (("        raise KeyboardInterrupt\n", "        pass\n"),)
    ),
    WrongWorker(
        "leaves at once, whatever it does", "leaves-at-work", (("signal.signal(signal.SIGTERM, on_sigterm)\n", ""),)
    ),
    WrongWorker(
        "keeps what a claim got that it did not await",
        "leaves-between",
        (('        if job := answer.get("job"):\n', "        if False:\n"),),
    ),
)
