"""Recovery from pruning in mid-training."""

import pytest
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe
from prunus.sparse.networks import mlp
from prunus.sparse.plasticity import plasticity


def build():
    return mlp(8, 30, 4)


def test_training_on_recovers_what_pruning_took():
    task, recipe = blobs(), Recipe(80, 0.01)
    found = plasticity(build, task, recipe, 0.15)
    assert found.pruned < found.before and found.gain == found.recovered - found.pruned > 0.05
    none = plasticity(build, task, recipe, 0.15, further=0)
    assert none.recovered == none.pruned == found.pruned and none.gain == 0
    assert plasticity(build, task, recipe, 0.15, regrow_rate=0.5) != found
    with pytest.raises(SettingError, match="below 1"):
        plasticity(build, task, recipe, 0.15, at=1.0)
