"""`chiffon demo`, the main job on real input, as a user runs it."""

import re

from tests.acceptance.deployment import chiffon


async def test_the_demonstration_shows_real_work_and_ends_as_expected() -> None:
    status, out, err = await chiffon("demo")

    assert status == 0, out + err
    live, summary = out.split("What ran where")
    assert re.search(r"talks for 4 s +\| line 8 of 8", live)
    assert re.search(r"fails +! cannot find what I was asked for", live)
    assert re.search(r"is cancelled +cancelled", live)
    assert re.search(r"kernel +\| Linux", live)
    assert re.search(r"^fails .* 3 +failed$", summary, re.MULTILINE)
    assert re.search(r"^is cancelled .* cancelled$", summary, re.MULTILINE)
    assert {"agent 1", "agent 2"} <= set(re.findall(r"agent \d", summary))
    assert "17 tasks: 15 completed, 1 failed, 1 cancelled." in summary
    assert "\x1b" not in out
    (averages,) = re.findall(r"Waited on average: (.*)", summary)
    waited = {int(name): float(time) for name, time in re.findall(r"priority (\d): ([\d.]+) s", averages)}
    assert waited[5] < waited[3] < waited[1]
