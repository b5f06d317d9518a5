"""What chooses: one method, one file."""

from prunus.strategies.adaptive_sampling import AdaptiveSampling
from prunus.strategies.aggregate import AGGREGATES, aggregate
from prunus.strategies.beam import Beam
from prunus.strategies.best_of_n import BestOfN
from prunus.strategies.dvts import DVTS
from prunus.strategies.early_rejection import EarlyRejection
from prunus.strategies.halving import SuccessiveHalving
from prunus.strategies.lookahead import Lookahead
from prunus.strategies.mcts import MCTS
from prunus.strategies.particle_filter import ParticleFilter
from prunus.strategies.process_advantage import ProcessAdvantage
from prunus.strategies.process_reward_agent import ProcessRewardAgent
from prunus.strategies.rebase import REBASE
from prunus.strategies.stream_t1 import StreamT1
from prunus.strategies.ttsnap import PruneSchedule, TTSnap
from prunus.strategies.vote import Vote

__all__ = [
    "AGGREGATES",
    "AdaptiveSampling",
    "Beam",
    "BestOfN",
    "DVTS",
    "EarlyRejection",
    "Lookahead",
    "MCTS",
    "ParticleFilter",
    "ProcessAdvantage",
    "ProcessRewardAgent",
    "PruneSchedule",
    "REBASE",
    "StreamT1",
    "SuccessiveHalving",
    "TTSnap",
    "Vote",
    "aggregate",
]
