"""What chooses: one method, one file."""

from prunus.strategies.beam import Beam
from prunus.strategies.best_of_n import BestOfN
from prunus.strategies.stream_t1 import StreamT1
from prunus.strategies.ttsnap import PruneSchedule, TTSnap

__all__ = ["Beam", "BestOfN", "PruneSchedule", "StreamT1", "TTSnap"]
