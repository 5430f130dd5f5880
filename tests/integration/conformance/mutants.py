"""Workers that each get one thing wrong: the example, with a few words changed."""

from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "worker.py"


@dataclass(frozen=True)
class Mutant:
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

MUTANTS = (
    Mutant("says complete twice", "completes", ((REPORT, REPORT * 2),)),
    Mutant(
        "does the work twice",
        "once-in-order",
        ((WORK, WORK * 2),),
    ),
    Mutant("forgets what is retryable", "reports-failure", (('payload.get("retryable", False)', "False"),)),
    Mutant(
        "completes what it does not understand",
        "unknown-work",
        (('if do in ("succeed", "sleep"):', 'if do != "fail":'),),
    ),
    Mutant(
        "takes more types than it was told",
        "own-types",
        (("allowedTypes=[TYPE]", 'allowedTypes=[TYPE, TYPE + "_no"]'),),
    ),
    Mutant("asks without a pause", "idle", (("        time.sleep(0.3)\n", "        pass\n"),)),
    Mutant(
        "minds unknown fields",
        "unknown-fields",
        (("                return answer.status, json.load(answer)\n", STRICT),),
    ),
    Mutant(
        "never renews", "heartbeats", (("    while not why and not ended.wait(LEASE / 4):\n", "    while False:\n"),)
    ),
    Mutant("ignores a cancel", "cancelled", (('status != 200 or answer["cancelled"]', "status != 200"),)),
    Mutant(
        "works on when it cannot renew, and completes without the attempt",
        "lease-lost",
        (
            ('status != 200 or answer["cancelled"]', 'status == 200 and answer["cancelled"]'),
            ("**own, **said", "**said"),
        ),
    ),
    Mutant(
        "works on after 409",
        "refused-heartbeat",
        (('status != 200 or answer["cancelled"]', 'status == 200 and answer["cancelled"]'),),
    ),
    Mutant(
        "gives up for good when it is refused",
        "frozen",
        (
            ("                return error.code, {}\n", "                os._exit(1)\n"),
            # On a busy machine the answer that refuses it comes later than it waits.
            ('why.append("cancelled" if status == 200 else "lost")', "os._exit(1)"),
        ),
    ),
    Mutant(
        "does not start again after a crash",
        "killed",
        (("signal.signal(", 'os.mkdir(f"{__file__}.{WORKER}")\nsignal.signal('),),
    ),
    Mutant(
        "claims with another claimId when an answer was lost",
        "lost-claim",
        (('call("claim", 1e9,', 'call("claim", 0,'),),
    ),
    Mutant(
        "never repeats complete",
        "lost-complete",
        (("""call(f"{job['id']}/{how}", 60,""", """call(f"{job['id']}/{how}", 0,"""),),
    ),
    Mutant(
        "never repeats fail",
        "lost-fail",
        (("""call(f"{job['id']}/{how}", 60,""", """call(f"{job['id']}/{how}", 0,"""),),
    ),
    Mutant("takes 503 for an answer", "busy", (("500) < 500 and", "500) < 600 and"),)),
    Mutant("repeats without a pause", "away", (("pause = min(pause * 2, 5)", "pause = 0.0"),)),
    Mutant("does not leave while it waits", "leaves-idle", (("        raise KeyboardInterrupt\n", "        pass\n"),)),
    Mutant(
        "leaves at once, whatever it does", "leaves-at-work", (("signal.signal(signal.SIGTERM, on_sigterm)\n", ""),)
    ),
    Mutant(
        "keeps what a claim got that it did not await",
        "leaves-between",
        (('        if job := answer.get("job"):\n', "        if False:\n"),),
    ),
)
