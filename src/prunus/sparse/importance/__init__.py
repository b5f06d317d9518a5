"""Importances: what a weight is worth. One a file; ``importance.py`` says what a new one must do."""

from prunus.sparse.importance.grasp import GraSP
from prunus.sparse.importance.importance import Importance, Scores
from prunus.sparse.importance.lamp import LAMP
from prunus.sparse.importance.magnitude import Magnitude
from prunus.sparse.importance.movement import Movement
from prunus.sparse.importance.random import Random
from prunus.sparse.importance.reward_drop import RewardDrop
from prunus.sparse.importance.snip import SNIP
from prunus.sparse.importance.synflow import SynFlow
from prunus.sparse.importance.taylor import Taylor
from prunus.sparse.importance.wanda import Wanda

__all__ = [
    "GraSP",
    "Importance",
    "LAMP",
    "Magnitude",
    "Movement",
    "Random",
    "RewardDrop",
    "SNIP",
    "Scores",
    "SynFlow",
    "Taylor",
    "Wanda",
]
