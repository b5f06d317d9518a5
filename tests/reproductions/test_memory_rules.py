"""Forced gates do to the cache what they say."""

import pytest

from prunus import search_many
from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.memory_rules import RULES, MemoryRule
from prunus.roles import FunctionReward

PROMPT = "a red circle moving right"


def layout(video_model, rule):
    """What the ninth chunk (8) attended to; the window holds two earlier chunks, so 1 to 5 have left it."""
    generator = StreamingVideo(video_model, 27)
    (tree,) = search_many([PROMPT], generator, FunctionReward(lambda f, p: 0.0, "none"), rule, seeds=[5])
    ((state, _),) = generator.restore([tree.result], PROMPT)
    return state.cache.layout()


@pytest.mark.parametrize(
    "rule, sinks",
    [
        (RULES["discard"], ["0"]),
        (RULES["EMA 0.9"], ["0+1+2+3+4+5"]),
        (RULES["append"], ["0", "1", "2", "3", "4+5"]),
        (MemoryRule(gate="append", only={(PROMPT, 5): 3}), ["0", "3"]),
        (MemoryRule(gate="append", only={(PROMPT, 5): 6}), ["0"]),  # it is still in the window
    ],
)
def test_what_stands_in_the_cache(video_model, rule, sinks):
    found = layout(video_model, rule)
    assert (found["sinks"], found["window"]) == (sinks, ["6", "7"])


def test_how_much_an_average_keeps(video_model):
    weights = layout(video_model, RULES["EMA 0.5"])["weights"][0]
    assert weights[0] == pytest.approx(0.5 ** (len(weights) - 1)) and sum(weights.values()) == pytest.approx(1)


def test_an_unknown_gate_is_refused():
    with pytest.raises(SettingError, match="append, ema, discard"):
        MemoryRule(gate="keep")
