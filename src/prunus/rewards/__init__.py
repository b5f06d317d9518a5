"""What scores candidates: one reward, one file."""

from prunus.rewards.clip import ClipReward
from prunus.rewards.frame import FrameReward
from prunus.rewards.http_reward import HTTPReward
from prunus.rewards.noise_aware import NoiseAwareReward
from prunus.rewards.outcome_reward import OutcomeReward
from prunus.rewards.server_outcome_reward import ServerOutcomeReward
from prunus.rewards.server_step_reward import ServerStepReward
from prunus.rewards.step_reward import StepReward
from prunus.rewards.transformers_reward import TransformersReward
from prunus.rewards.vlm_judge import VLMJudge

__all__ = [
    "ClipReward",
    "FrameReward",
    "HTTPReward",
    "NoiseAwareReward",
    "OutcomeReward",
    "ServerOutcomeReward",
    "ServerStepReward",
    "StepReward",
    "TransformersReward",
    "VLMJudge",
]
