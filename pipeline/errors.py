"""Errors: each carries what happened, where, and what to do; drivers' errors are translated at the adapters.

``TransientError`` means "the same call may succeed later"; ``PermanentError`` means "it never will";
``FencedError`` means "somebody else owns this now: stop"; ``PositionLostError`` means "the place to go on
from is gone and a person must decide".
"""

from __future__ import annotations

from collections.abc import Mapping


class PipelineError(Exception):
    """What went wrong, and a hint what to do about it. Neither ever contains a secret."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})" if self.hint else self.what


class ConfigurationError(PipelineError):
    """Everything that is wrong with the configuration, in one error."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TransientError(PipelineError):
    """Trying again later may succeed."""


class SinkUnavailableError(TransientError):
    """The sink as a whole does not accept: nobody's fault, so no lane is blamed."""


class PermanentError(PipelineError):
    """Trying again cannot succeed."""


class MalformedEventError(PermanentError):
    """A record on the topic is not an event of a known envelope version."""


class FencedError(PipelineError):
    """A newer owner has taken over: this process must stop what it does."""


class PositionLostError(PipelineError):
    """The position to go on from no longer exists; going on would lose events.

    `first`: the first offset that is left of each partition concerned, as far as that is known. `lanes`: those whose
    position is lost, None when it is that of all.
    """

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        first: Mapping[int, int] | None = None,
        lanes: frozenset[str] | None = None,
    ) -> None:
        super().__init__(what, hint=hint)
        self.first = first or {}
        self.lanes = lanes


class EpochLostError(PipelineError):
    """The lane store was emptied: forget what was appended and read again from the committed offsets."""


class StoreFullError(TransientError):
    """The lane store has no room: nothing was appended."""
