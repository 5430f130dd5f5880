"""A worker for the queue API of Chiffon: python worker.py SERVER [WORKER_ID].

`work` does what `chiffon conformance` asks for: put your own work there. docs/how-to/write-a-worker.md explains the rest.
"""

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__.split("\n")[0])
SERVER = sys.argv[1]
WORKER = sys.argv[2] if len(sys.argv) > 2 else f"worker-{os.getpid()}"
TYPE = os.environ.get("QUEUE_WORK_TYPE", "conformance")
LEASE = float(os.environ.get("QUEUE_LEASE_SECONDS", "30"))
HEADERS = {"content-type": "application/json"}
if TOKEN := os.environ.get("QUEUE_TOKEN"):
    HEADERS["authorization"] = f"Bearer {TOKEN}"
idle = stopping = False


def on_sigterm(*_):
    global idle, stopping
    stopping, was_idle, idle = True, idle, False
    if was_idle:
        raise KeyboardInterrupt


def call(path, patience, **body):
    """Ask until there is an answer, for `patience` seconds: what became of a request without an answer is unknown."""
    pause, until, url = 0.1, time.monotonic() + patience, f"{SERVER}/api/queue/jobs/{path}"
    content = json.dumps({"workerId": WORKER, **body}).encode()
    while True:
        wait = max(0.1, min(until - time.monotonic(), 10 + body.get("waitSeconds", 0)))
        try:
            request = urllib.request.Request(url, content, HEADERS)
            with urllib.request.urlopen(request, timeout=wait) as answer:
                return answer.status, json.load(answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            if 400 <= getattr(error, "code", 500) < 500 and error.code != 429:
                return error.code, {}
        pause = min(pause * 2, 5)
        if time.monotonic() + pause > until:
            return 0, {}
        time.sleep(random.uniform(pause / 2, pause))


def keep(job, attempt, why, ended):
    """Renew the lease until the work has `ended`; say `why` it must stop: it was cancelled, or the lease is lost."""
    until = time.monotonic() + LEASE
    while not why and not ended.wait(LEASE / 4):
        asked = time.monotonic()
        status, answer = call(f"{job}/heartbeat", until - asked - LEASE / 4, attempt=attempt, leaseSeconds=LEASE)
        until = asked + LEASE
        if status != 200 or answer["cancelled"]:
            why.append("cancelled" if status == 200 else "lost")


def work(payload, why, report):
    """Do the job, unless there is a reason `why` it must stop; return how to report its end, and with what."""
    do, seconds, began, reported = payload.get("do"), payload.get("seconds", 0), time.monotonic(), 0
    while not why:
        if "writeTo" in payload:
            with open(payload["writeTo"], "a") as file:
                file.write(payload["text"] + "\n")
        done = time.monotonic() - began
        if do != "sleep" or done >= seconds:
            break
        if done >= reported + 1:  # one report a second is enough for a reader
            reported = done
            report(f"{100 * done / seconds:.0f}% slept for {done:.0f} of {seconds:g} seconds")
        time.sleep(0.1)
    if do in ("succeed", "sleep"):
        return "complete", {"resultSummary": payload["text"]}
    if do == "fail":
        return "fail", {"errorMessage": payload["text"], "retryable": payload.get("retryable", False)}
    return "fail", {"errorMessage": f"unknown work: {do}"}


def run(job):
    """Do a job while its lease is kept, and say how it ended, unless it is no longer ours."""
    why, ended, own = [], threading.Event(), {"attempt": job["attempt"]}

    def report(text):
        """Say where the work stands. It is not worth waiting for: what is lost is said again a second later."""
        status, _ = call(f"{job['id']}/progress", LEASE / 20, **own, progress=text)
        if status == 409:
            why.append("lost")

    keeper = threading.Thread(target=keep, args=(job["id"], job["attempt"], why, ended))
    keeper.start()
    how, said = work(job["payload"], why, report)
    ended.set()
    keeper.join()
    if "cancelled" in why:
        how, said = "fail", {"errorMessage": "stopped", "cancelled": True}
    if "lost" not in why:
        call(f"{job['id']}/{how}", 60, **own, **said)


def take():
    """Wait for a job and return it. The same claimId gets the same job again when an answer was lost."""
    global idle
    claim = {"claimId": str(uuid.uuid4()), "leaseSeconds": LEASE}
    try:
        idle = True
        _, answer = call("claim", 1e9, waitSeconds=10, allowedTypes=[TYPE], **claim)
        idle = False
        return answer.get("job")
    except KeyboardInterrupt:  # the claim may have got a job, in an answer that nobody awaited: hand it back
        _, answer = call("claim", 5, allowedTypes=[], **claim)
        if job := answer.get("job"):
            call(f"{job['id']}/fail", 5, attempt=job["attempt"], errorMessage="not begun", started=False)


signal.signal(signal.SIGTERM, on_sigterm)
while not stopping:
    if job := take():
        run(job)
    else:
        time.sleep(0.3)
