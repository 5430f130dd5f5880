"""Why a step of a repair does not come to its end."""


class StepFailed(Exception):
    """The step failed; the text says why, for people."""


class DockerAway(StepFailed):
    """The docker daemon does not answer. It may come back."""


class Stopped(Exception):
    """The repair was ordered to stop."""
