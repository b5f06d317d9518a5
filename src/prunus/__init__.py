"""Prunus: grow, score, prune. Reward-guided search for generative models.

The core is light; models are imported where they are used (``prunus.generators``, ``prunus.rewards``, ...).
"""

from prunus.budget import Budget, Cost
from prunus.errors import PrunusError
from prunus.roles import Generator, Reward, Strategy, View
from prunus.score import Score
from prunus.search import Event, search, search_many, stream_search
from prunus.tree import Node, Status, Tree

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Cost",
    "Event",
    "Generator",
    "Node",
    "PrunusError",
    "Reward",
    "Score",
    "Status",
    "Strategy",
    "Tree",
    "View",
    "search",
    "search_many",
    "stream_search",
]
