"""A decision takes time in proportion to the work, whatever its caller puts into it."""

import time
from typing import Any

import pytest

from common.policy.model import Ruling, Work
from common.policy.read import parse_policy
from common.policy.rules import decide, explain

# As much as parameters may have. What used to be matched by backtracking took from many seconds to for ever.
MOST = 512 * 1024
MOST_SECONDS = 3.0

GLOBS = 'allow = { files = ["/srv/**/logs/**/*.gz", "/srv/**/a*a*a*a*a*a*b", "/**/**/**/**/x"] }'
MANY_GLOBS = "allow = { files = [" + ", ".join(f'"/srv/**/{number}*/**/*.gz"' for number in range(200)) + "] }"
PATTERNS = [r"(\w+/?)+", r"(a+)+b", r"(a|aa)*b", r"(.*a){20}b", r".*a.{500}", r"(a?){200}a{200}b", r"(.*,)*P"]


def arguments(one: str) -> list[str]:
    """Return arguments of one kind, as many as the parameters may hold."""
    return [one] * min(1023, MOST // len(one))


@pytest.mark.parametrize(
    "argv",
    [
        ["/srv" + "/logs" * 100_000 + "/x"],
        arguments("/srv" + "/logs" * 800 + "/x"),
        arguments("/srv" + "/logs/a.gz" * 40),
        arguments("/srv/a/logs/b/c.gz:" * 200),
        arguments("=/" * 250),
        arguments("-" + "a" * 250 + "/" + "." * 250),
        arguments("/srv/" + "a" * 500),
        [":" * MOST],
        [("/" + ":" * 3) * (MOST // 4)],
        arguments("%/~$" * 1000),
    ],
    ids=lambda argv: f"{argv[0][:12]} {len(argv)} times {len(argv[0])}",
)
@pytest.mark.parametrize("rule", [GLOBS, MANY_GLOBS], ids=["globs", "many globs"])
def test_globs_do_not_take_longer_than_the_arguments_are_long(rule: str, argv: list[str]) -> None:
    decided(rule, argv=["cat", *argv])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "text", ["a" * 4095 + "!", "a," * 2047, "a/" * 2047 + "!", "a" * MOST], ids=lambda text: text[-2:]
)
def test_no_pattern_takes_longer_than_a_text_is_long(pattern: str, text: str) -> None:
    decided(f"parameters = {{ \"argv.0\" = '{pattern}!!' }}", argv=[text])
    decided(f"allow = {{ arguments = '{pattern}!!' }}", argv=["x", *arguments(text[:4096])])


def test_many_variables_take_no_longer_than_they_are_many() -> None:
    decided('allow = { environment = ["A"] }', argv=["x"], env={f"V{number}": "" for number in range(50_000)})


def decided(rule: str, **parameters: Any) -> None:
    """Assert that the work is ruled on, and explained, in time and in few words."""
    policy = parse_policy(f'version = 1\n[[rule]]\nname = "it"\neffect = "read"\n{rule}\n', source="policy.toml")
    work = Work("own_type", "infra", parameters)
    begun = time.process_time()

    answer, [finding] = decide(policy, work), explain(policy, work)

    assert time.process_time() - begun < MOST_SECONDS
    assert len(finding.violations) <= 1
    assert isinstance(answer, Ruling) or len(answer.reason) < 10_000
