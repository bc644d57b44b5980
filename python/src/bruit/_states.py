"""The states of members and nodes: enums that are also strings, so that ``member.state == "alive"`` reads well."""

from __future__ import annotations

import enum

__all__ = ["MemberState", "NodeState"]


class MemberState(str, enum.Enum):
    """How a member fares."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    """Did not answer; may yet refute it."""
    DEAD = "dead"
    LEFT = "left"
    """Said good-bye."""

    def __str__(self) -> str:
        return self.value


class NodeState(str, enum.Enum):
    """Where a node is in its life."""

    NEW = "new"
    RUNNING = "running"
    LEAVING = "leaving"
    LEFT = "left"
    STOPPED = "stopped"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


# In the order of their numbers in the C interface.
NODE_STATES = (
    NodeState.NEW,
    NodeState.RUNNING,
    NodeState.LEAVING,
    NodeState.LEFT,
    NodeState.STOPPED,
    NodeState.FAILED,
)
