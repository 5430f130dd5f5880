"""How far the programs of a task are shut in: what a policy demands and an agent enforces."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# What every agent can enforce, because the kernel does it for every process; of the rest it announces what it can.
EVERYWHERE = frozenset({"max_memory_bytes", "max_cpu_seconds", "max_open_files", "max_file_bytes"})


class Confinement(BaseModel):
    """Limits on the programs of one attempt; None where there is no limit, False where nothing is demanded.

    An agent whose host cannot enforce what is demanded refuses the work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network_off: bool = Field(default=False, description="The programs reach no network, not even loopback.")
    sandbox: bool = Field(
        default=False,
        description="They see the system, their workspace, a /tmp of their own and what the host names, and can write "
        "to the workspace, to /tmp and to what the host names for that.",
    )
    own_user: bool = Field(default=False, description="They run as a user other than the agent's.")
    max_memory_bytes: int | None = Field(default=None, ge=1024 * 1024, description="Address space of each process.")
    max_cpu_seconds: int | None = Field(default=None, ge=1, description="Processor time of each process.")
    max_open_files: int | None = Field(default=None, ge=16, description="Open files of each process.")
    max_processes: int | None = Field(default=None, ge=1, description="Processes and threads of their user.")
    max_file_bytes: int | None = Field(default=None, ge=0, description="The largest file that they can write.")

    def with_also(self, other: "Confinement") -> "Confinement":
        """Return what holds when both hold: of two limits the lower one."""
        given = [(name, getattr(self, name), getattr(other, name)) for name in type(self).model_fields]
        return Confinement(**{name: _stricter(one, another) for name, one, another in given})

    @property
    def demands(self) -> frozenset[str]:
        """The names of what is demanded; empty for no confinement beyond what every program gets."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) not in (None, False))


def _stricter(one: Any, another: Any) -> Any:
    if isinstance(one, bool):
        return one or another
    return min((limit for limit in (one, another) if limit is not None), default=None)


UNCONFINED = Confinement()
