"""ROS 2 message classes and quality of service, as rclpy has them."""

from __future__ import annotations

from typing import Any

from lehrling.datasets.errors import InputError
from lehrling.deploy.ros_qos import Offer, Request


def message_class(msgtype: str) -> Any:
    """Return the message class of a type that the sourced ROS knows.

    Raises:
        InputError: there is none.
    """
    import importlib

    package, _, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise InputError(
            f"The message type {msgtype} is not in the sourced ROS; source the workspace that has {package}, or correct the "
            "embodiment file."
        ) from None


def profile(request: Request) -> Any:
    """Return a request as rclpy's QoSProfile."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=request.depth,
        reliability=ReliabilityPolicy[request.reliability.upper()],
        durability=DurabilityPolicy[request.durability.upper()],
    )


def offer_of(info: Any) -> Offer:
    """Return what a publisher offers, as the graph tells."""
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    best_effort = info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    latched = info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return Offer("best_effort" if best_effort else "reliable", "transient_local" if latched else "volatile")
