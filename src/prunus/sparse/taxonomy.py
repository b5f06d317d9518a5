"""What kind of method a method is: the taxonomy of the survey (card 46, arXiv 2308.06767, version 2) as data.

Each method carries a ``MethodCard`` as ``taxonomy``. Its axes: which *speed-up* is to be had (``structured`` is
universal; ``unstructured`` and ``semi_structured`` need special kernels or hardware), *when* the mask is fixed, *how*
it is found (criteria, or learned), and what it is *fused* with. ``contrast`` says in what two methods differ, and
``PAIRS`` are the survey's contrasting settings: seven in version 1, eight in version 2. P1 to P4 are named in the
abstract; P5 to P8 are inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from prunus.errors import SettingError, require

SPEEDUP = {"unstructured": "S.unstr", "semi_structured": "S.semi", "structured": "S.struct"}
WHEN = {"before_training": "W.pbt", "during_training": "W.pdt", "after_training": "W.pat", "run_time": "W.run"}
CRITERIA = {
    "magnitude": "C.mag",
    "lp_norm": "C.norm",
    "sensitivity": "C.sens",
    "loss_change": "C.loss",
    "chance": "C.rand",  # not the survey's: the random baseline
}
LEARN = {
    "sparsity_regularization": "L.reg",
    "meta_learning": "L.meta",
    "graph_neural_network": "L.gnn",
    "reinforcement_learning": "L.rl",
    "learned_scores": "L.score",  # not one of the survey's four: masks trained by gradient (cards 22 and 42)
}
FUSION = {"quantization": "F.quant", "tensor_decomposition": "F.decomp", "nas": "F.nas", "distillation": "F.kd"}
GRANULARITY = {
    "W": "weight",
    "F": "filter",
    "C": "channel",
    "N": "neuron",
    "H": "head",
    "L": "layer",
    "B": "block",
    "M": "matrix",
    "E": "embedding",
}
KINDS = {  # what the survey puts below during_training and after_training
    "during_training": {"sparsity_regularization", "dynamic_sparse_training", "score_based"},
    "after_training": {"lottery_ticket", "train_prune_finetune", "early_training", "post_training"},
}
SETS = {"speedup": SPEEDUP, "criteria": CRITERIA, "learn": LEARN, "fusion": FUSION, "granularity": GRANULARITY}
WORDS = {
    "when": tuple(WHEN),
    "data": ("free", "driven"),
    "weights": ("init", "pretrained"),
    "retrain": ("none", "finetune", "rewind", "scratch"),
    "scope": ("local", "global"),
}
TAGS = {
    tag: (axis, name)
    for axis, table in (*SETS.items(), ("when", WHEN))
    if axis != "granularity"
    for name, tag in table.items()
}
"""The survey's id -> (axis, word)."""


def _set(*names: str) -> frozenset[str]:
    return frozenset(names)


@dataclass(frozen=True)
class MethodCard:
    """One method. Sets may hold several tags: classes overlap (a gradual method may also regrow)."""

    name: str
    paper: str
    speedup: frozenset[str]
    when: str
    criteria: frozenset[str] = _set()
    learn: frozenset[str] = _set()
    granularity: frozenset[str] = _set("W")
    iterative: bool = False
    data: str = "free"
    weights: str = "pretrained"
    retrain: str = "finetune"
    scope: str = "local"
    kind: frozenset[str] = _set()
    static: bool = True
    fusion: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def tags(self) -> list[str]:
        """The survey's ids, e.g. ``["S.unstr", "W.pat", "C.mag"]``."""
        words = {(axis, name) for axis in SETS for name in getattr(self, axis)} | {("when", self.when)}
        return [tag for tag, place in TAGS.items() if place in words]

    @property
    def universal(self) -> bool:
        """Whether its speed-up is had on any hardware with ordinary libraries."""
        return self.speedup == {"structured"}


def validate(card: MethodCard) -> None:
    """Raise SettingError for a word that the taxonomy does not have, or for a mix that cannot be."""
    for axis, table in SETS.items():
        unknown = getattr(card, axis) - set(table)
        require(not unknown, axis, sorted(unknown), f"of {', '.join(table)}")
    for axis, words in WORDS.items():
        require(getattr(card, axis) in words, axis, getattr(card, axis), f"one of {', '.join(words)}")
    unknown = card.kind - KINDS.get(card.when, set())
    require(not unknown, f"kind of a {card.when} method", sorted(unknown), f"of {sorted(KINDS.get(card.when, ()))}")
    impossible = {
        "it needs a speedup and a granularity": not card.speedup or not card.granularity,
        "it finds masks by criteria or by learning, or both": not card.criteria and not card.learn,
        "before training there are no pretrained weights": (card.when, card.weights)
        == ("before_training", "pretrained"),
        "single weights (W) are unstructured or semi-structured": card.granularity == {"W"} and card.universal,
        "unstructured means single weights (W)": card.speedup == {"unstructured"} and card.granularity != {"W"},
        "a mask that depends on the input is run_time, and only that": card.static == (card.when == "run_time"),
        "a gradient of the loss needs data": card.data == "free" and bool(card.criteria & {"loss_change"}),
    }
    for rule, broken in impossible.items():
        if broken:
            raise SettingError(f"{card.name} cannot be: {rule}")


def contrast(a: MethodCard, b: MethodCard) -> set[str]:
    """The fields in which two methods differ; a clean comparison has one, or those of one pair of ``PAIRS``."""
    skip = {"name", "paper", "kind"}
    return {f.name for f in fields(MethodCard) if f.name not in skip and getattr(a, f.name) != getattr(b, f.name)}


def query(cards: Iterable[MethodCard], **wanted: object) -> list[MethodCard]:
    """Those with the given values; for a field that is a set, a word that must be in it."""
    unknown = wanted.keys() - {f.name for f in fields(MethodCard)}
    require(not unknown, "query", sorted(unknown), f"of {', '.join(f.name for f in fields(MethodCard))}")

    def has(value: object, word: object) -> bool:
        return word in value if isinstance(value, frozenset) and isinstance(word, str) else value == word

    return [card for card in cards if all(has(getattr(card, name), word) for name, word in wanted.items())]


@dataclass(frozen=True)
class Pair:
    """Two contrasting settings: the fields in which a clean pair of methods differs (``must`` in all of them, and may
    in ``may``), how to run it, and what the literature expects (a hypothesis to measure, not a result), in words and as
    a sign that stands between one and other: >, <, <=, = (about the same) or nothing."""

    id: str
    one: str
    other: str
    must: frozenset[str]
    may: frozenset[str]
    how: str
    expected: str
    sign: str = ""
    inferred: bool = False


PAIRS = (
    Pair("P1", "unstructured", "structured", _set("speedup", "granularity"), _set(),
         "same MACs or same parameters, say which", "unstructured is better at equal parameters", ">"),
    Pair("P2", "one-shot", "iterative", _set("iterative"), _set(),
         "equal training steps in all", "iterative is at least as good at high sparsity", "<="),
    Pair("P3", "data-free", "data-driven", _set("data"), _set("criteria"),
         "magnitude, SynFlow against SNIP, Taylor, Wanda", ""),
    Pair("P4", "initialised weights", "pre-trained weights", _set("weights"), _set("when", "retrain"),
         "the same criterion on theta_0 and on theta_T", "pre-trained is better", "<"),
    Pair("P5", "training from scratch", "fine-tuning", _set("retrain"), _set(),
         "the arms of card 21", "about the same for structured pruning", "=", inferred=True),
    Pair("P6", "original task", "transfer", _set(), _set(),
         "prune on task A and tune on B, against prune on B", "", inferred=True),
    Pair("P7", "static", "dynamic", _set("static", "when"), _set("learn", "criteria"),
         "equal average MACs", "", inferred=True),
    Pair("P8", "layer-wise", "global", _set("scope"), _set(),
         "the same criterion, uniform against one threshold", "global is at least as good unless a layer collapses",
         "<=", inferred=True),
)  # fmt: skip


def clean_pairs(cards: Iterable[MethodCard]) -> list[tuple[Pair, MethodCard, MethodCard]]:
    """Which two of the methods are a clean instance of which pair: the report of the contrasts that can be measured.

    P6 is a matter of tasks, not of methods, and never among them.
    """
    cards = list(cards)
    return [
        (pair, a, b)
        for pair in PAIRS
        for i, a in enumerate(cards)
        for b in cards[i + 1 :]
        if pair.must and pair.must <= contrast(a, b) <= pair.must | pair.may
    ]
