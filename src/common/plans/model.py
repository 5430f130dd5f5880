"""A plan: steps, what each needs, and what undoes it. A step is dispatched as a task; references give it its values.

Here is what a plan may say, field by field; `check` says whether its parts fit together.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)

from common.canonical import canonical_json
from common.json_rules import Line, Number, SafeObject, Truth, WholeNumber, check_json, check_size
from common.policy.model import ApprovalDemand
from common.rest.work import (
    ConcurrencyKey,
    ConcurrencyLimit,
    ExpiresAfterSeconds,
    Idempotent,
    MaxAttempts,
    OrderingKey,
    Priority,
    WorkTypeName,
)
from common.work import MAX_PARAMETERS_BYTES

MOST_STEPS = 500
MOST_ROUNDS = 100
MOST_CHOICES = 100
LONGEST_PAUSE_SECONDS = 86_400
# With the name of a step behind it, it names a task.
LONGEST_PLAN_NAME = 128
STEP_NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
# No names of fields: `place_in` leaves them out of places.
CONDITION = "a condition"
WORD = "a word"


def _no_larger(value: Any) -> Any:
    check_size(value, MAX_PARAMETERS_BYTES)
    return value


def _not_too_many(value: Any) -> Any:
    if isinstance(value, list) and len(value) > MOST_STEPS:
        raise ValueError(f"must have at most {MOST_STEPS} steps, not {len(value)}")
    return value


def _kind_of(value: Any) -> str | None:
    if isinstance(value, str):
        return WORD
    return CONDITION if isinstance(value, dict | Condition) else None


StepName = Annotated[str, StringConstraints(pattern=STEP_NAME_PATTERN)]
Values = Annotated[SafeObject, AfterValidator(_no_larger)]
AnyValue = Annotated[JsonValue, AfterValidator(check_json), AfterValidator(_no_larger)]


class Part(BaseModel):
    """The base of all parts of a plan. An unknown field is refused: it may be a typing error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Condition(Part):
    """Whether a value is what it should be: exactly one of the comparisons, of which each may refer to values, too."""

    value: AnyValue = Field(description="What is compared, mostly a reference.")
    equals: AnyValue = Field(default=None, description="It is this.")
    not_equals: AnyValue = Field(default=None, description="It is anything but this.")
    one_of: Annotated[list[JsonValue], AfterValidator(check_json), AfterValidator(_no_larger)] | None = Field(
        default=None, min_length=1, max_length=MOST_CHOICES, description="It is one of these, of which one may be null."
    )

    @model_validator(mode="after")
    def _compares_once(self) -> Self:
        if sum(given is not None for given in (self.equals, self.not_equals, self.one_of)) != 1:
            raise ValueError(
                "give exactly one of 'equals', 'not_equals' and 'one_of'; null is none of them: write one_of = [null]"
            )
        return self


class Repeat(Part):
    """Begin the loop again until a condition holds. A loop whose last round leaves it unfulfilled has failed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    until: Condition = Field(description="The loop ends when this holds; looked at whenever the step has ended.")
    at_most: WholeNumber = Field(ge=1, le=MOST_ROUNDS, description="So many rounds, the first included.")
    every_seconds: Number = Field(
        default=0,
        ge=0,
        le=LONGEST_PAUSE_SECONDS,
        allow_inf_nan=False,
        description="How long the first step of each further round waits, at least, after the round before has ended.",
    )
    from_step: StepName | None = Field(
        default=None,
        alias="from",
        description="Each round begins with this step, and repeats all on the way from it; without it the step alone.",
    )


class Undo(Part):
    """The work that takes back what a step did, if the run fails or is cancelled after it."""

    work_type: WorkTypeName
    parameters: Values = Field(
        default_factory=dict,
        description="What the work type needs to know; may refer to the step itself, and to those before it.",
    )
    hints: Values = Field(default_factory=dict, description="Where the work should go.")
    priority: Priority = 3
    idempotent: Idempotent = False
    max_attempts: MaxAttempts = None


When = Annotated[
    Annotated[Literal["succeeded", "failed", "not_failed", "always"], Tag(WORD)] | Annotated[Condition, Tag(CONDITION)],
    Discriminator(
        _kind_of,
        custom_error_type="when",
        custom_error_message="must be 'succeeded', 'failed', 'not_failed', 'always', or a condition: an object",
    ),
]


class Step(Part):
    """One task of a run."""

    name: StepName = Field(description="Unique in the plan.")
    work_type: WorkTypeName
    parameters: Values = Field(
        default_factory=dict,
        description="What the work type needs to know. Texts may refer to values: `${inputs.service}`, "
        "`${steps.build.result.image}`; `$${` is the text `${`.",
    )
    hints: Values = Field(default_factory=dict, description="Where the work should go; may refer to values, too.")
    needs: list[StepName] | None = Field(
        default=None,
        max_length=MOST_STEPS,
        description="It waits for these; without this for the step before it, with an empty list for none.",
    )
    when: When = Field(
        default="succeeded",
        description="Whether it begins once all that it needs is over: `succeeded` if all of it succeeded, `failed` if "
        "some of it failed, or was skipped after a failure, `not_failed` if none of it did, `always`; a condition "
        "if all of it succeeded and the condition holds. Otherwise the step is skipped.",
    )
    may_fail: Truth = Field(default=False, description="If it fails, the run goes on as if it had succeeded.")
    repeat: Repeat | None = Field(default=None, description="The loop that ends with this step.")
    undo: Undo | None = Field(default=None, description="What takes back what it did.")
    approval: ApprovalDemand | None = Field(
        default=None, description="Who must say yes before it begins, besides those whom the policy asks."
    )
    priority: Priority = 3
    idempotent: Idempotent = False
    max_attempts: MaxAttempts = None
    expires_after_seconds: ExpiresAfterSeconds = None
    ordering_key: OrderingKey = None
    concurrency_key: ConcurrencyKey = None
    concurrency_limit: ConcurrencyLimit = None


class Plan(Part):
    """Steps, and the values that they may refer to."""

    name: Line = Field(default="", max_length=LONGEST_PLAN_NAME, description="What people call it, in lists.")
    inputs: Values = Field(
        default_factory=dict, description="Values that a run may be given others for, each with its default."
    )
    steps: Annotated[list[Step], BeforeValidator(_not_too_many)] = Field(
        min_length=1, max_length=MOST_STEPS, description="In their order; `needs` may name later ones, too."
    )


def plan_digest(plan: Plan, inputs: Mapping[str, Any]) -> bytes:
    """Return SHA-256 (32 bytes) over what a run is asked to do: a default is the same whether it is spelled out."""
    asked = {"plan": plan.model_dump(mode="json", by_alias=True, exclude_defaults=True), "inputs": dict(inputs)}
    return hashlib.sha256(canonical_json(asked)).digest()
