"""The published methods: each a short composition of the parts, with its paper's defaults.

``METHODS`` is the table: a name for the command line -> the class. An instance has ``taxonomy``, a ``MethodCard``, and
``run(build, task, recipe, seed=0, every=0) -> Sparsified``.
"""

from prunus.sparse.methods.bip import BiP
from prunus.sparse.methods.consensus import Consensus
from prunus.sparse.methods.game import Game
from prunus.sparse.methods.granet import GMP, SET, GraNet, RigL
from prunus.sparse.methods.imp_rewinding import IMPRewinding
from prunus.sparse.methods.jackpots import Jackpots
from prunus.sparse.methods.layer_lottery import LayerLottery
from prunus.sparse.methods.lottery_ticket import LotteryTicket
from prunus.sparse.methods.one_shot import OneShot
from prunus.sparse.methods.result import Level, Sparsified
from prunus.sparse.methods.sap import SAP
from prunus.sparse.methods.scratch import compare_arms, scratch_budget
from prunus.sparse.methods.sparse_gpt import SparseGPT
from prunus.sparse.methods.wanda import Wanda

METHODS = {
    "bip": BiP,
    "consensus": Consensus,
    "game": Game,
    "gmp": GMP,
    "granet": GraNet,
    "imp-rewinding": IMPRewinding,
    "jackpots": Jackpots,
    "layer-lottery": LayerLottery,
    "lottery-ticket": LotteryTicket,
    "one-shot": OneShot,
    "rigl": RigL,
    "sap": SAP,
    "set": SET,
    "sparse-gpt": SparseGPT,
    "wanda": Wanda,
}

__all__ = [
    "GMP",
    "METHODS",
    "SAP",
    "SET",
    "BiP",
    "Consensus",
    "Game",
    "GraNet",
    "IMPRewinding",
    "Jackpots",
    "LayerLottery",
    "Level",
    "LotteryTicket",
    "OneShot",
    "RigL",
    "SparseGPT",
    "Sparsified",
    "Wanda",
    "compare_arms",
    "scratch_budget",
]
