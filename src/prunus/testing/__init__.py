"""For those who write generators, rewards and strategies: scripted models, and checks of the contract.

The checks say which rule of the contract a class breaks, by an AssertionError. They need no test framework::

    def test_my_reward():
        check_reward(MyReward(), contents=[clip, other], prompts=["a red circle", "a blue square"])
"""

from prunus.testing.compare import assert_same_tree, differences, same
from prunus.testing.generator_contract import check_generator
from prunus.testing.importance_contract import check_importance
from prunus.testing.reward_contract import check_reward
from prunus.testing.scripted import ScriptedGenerator, ScriptedHow, ScriptedReward, ScriptedState
from prunus.testing.scripted_text import ScriptedText, ScriptedTextHow
from prunus.testing.strategy_contract import check_strategy

__all__ = [
    "ScriptedGenerator",
    "ScriptedHow",
    "ScriptedReward",
    "ScriptedState",
    "ScriptedText",
    "ScriptedTextHow",
    "assert_same_tree",
    "check_generator",
    "check_importance",
    "check_reward",
    "check_strategy",
    "differences",
    "same",
]
