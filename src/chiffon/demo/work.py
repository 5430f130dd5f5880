"""What the demonstration dispatches, and how each task is expected to end."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from common.lifecycle import Status

LINES = 8
SHORT_TASKS = 10


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task: what it runs, and how it must end for the demonstration to have succeeded."""

    name: str
    priority: int
    parameters: dict[str, Any]
    ends: Status = Status.COMPLETED
    exit_code: int | None = 0
    is_cancelled_on_its_way: bool = False
    task_id: UUID = field(default_factory=uuid4)

    def body(self, trace_id: UUID) -> dict[str, Any]:
        """Return the body of its dispatch."""
        return {
            "task_id": str(self.task_id),
            "trace_id": str(trace_id),
            "work_type": "shell_script",
            "parameters": {"max_duration_seconds": 60, **self.parameters},
            "priority": self.priority,
        }


def demo_tasks() -> list[DemoTask]:
    """Return the tasks in the order in which they are dispatched; priorities decide in which order they start."""
    talk = f'i=1; while [ "$i" -le {LINES} ]; do echo "line $i of {LINES}"; i=$((i + 1)); sleep 0.5; done'
    return [
        *(_short(number) for number in range(1, SHORT_TASKS + 1)),
        DemoTask("talks for 4 s", 5, {"script": talk}),
        DemoTask(
            "is cancelled",
            5,
            {"script": "while :; do echo 'still at it'; sleep 0.5; done"},
            ends=Status.CANCELLED,
            exit_code=None,
            is_cancelled_on_its_way=True,
        ),
        DemoTask(
            "fails",
            4,
            {"script": "echo 'cannot find what I was asked for' >&2; exit 3"},
            ends=Status.FAILED,
            exit_code=3,
        ),
        DemoTask("kernel", 4, {"argv": ["uname", "-a"]}),
        DemoTask("processors", 4, {"script": "grep -m 1 'model name' /proc/cpuinfo; echo \"$(nproc) of them\""}),
        DemoTask("memory", 4, {"argv": ["head", "-n", "3", "/proc/meminfo"]}),
        DemoTask("disk", 4, {"argv": ["df", "-h", "/"]}),
    ]


def _short(number: int) -> DemoTask:
    priority = (number * 2) % 5 + 1
    return DemoTask(f"short {number}", priority, {"script": f"sleep 0.4; echo 'short {number} is done'"})
