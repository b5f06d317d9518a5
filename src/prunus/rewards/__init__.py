"""What scores candidates: one reward, one file."""

from prunus.rewards.clip import ClipReward
from prunus.rewards.frame import FrameReward

__all__ = ["ClipReward", "FrameReward"]
