"""What can be wrong with a request about a job."""

from uuid import UUID

from common.errors import Conflict, ErrorCode, NotFound


class JobNotFound(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"No job has the id {job_id}.")


class NotTheOwner(Conflict):
    """The worker does not own the job, or not any longer; or the job cannot make that move."""

    code = ErrorCode.LEASE_LOST
