"""Sparsify: make the network itself cheaper. Grow = train, score = importance, prune = mask, and regrow.

Where things are: importances (what a weight is worth) in ``importance/``, one a file; what is pruned as one in
``scope.py``; how much of each layer in ``allocation.py``; how fast in ``schedule.py``; growing back in ``regrow.py``;
putting back in ``rewind.py``; trained masks in ``learned.py``. ``masks.py`` is the one object that says what is kept.
``prune.py`` composes them into one pruning event, ``training.py`` is the loop between events, and ``methods/`` are the
published compositions.
"""

from prunus.sparse.masks import Masks, prunable
from prunus.sparse.prune import prune, prune_in_rounds
from prunus.sparse.task import Evaluation, Examples, Task
from prunus.sparse.training import Recipe, Training, train

__all__ = [
    "Evaluation",
    "Examples",
    "Masks",
    "Recipe",
    "Task",
    "Training",
    "prunable",
    "prune",
    "prune_in_rounds",
    "train",
]
