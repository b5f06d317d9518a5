"""StepReward on tiny random Llama and BERT folders, against the model run by hand on the whole text."""

import numpy as np
import pytest
import torch
from text_folders import write_folder

from prunus import Budget, search
from prunus.budget import Cost
from prunus.errors import ModelError, PromptError, SettingError
from prunus.generators.written import Written
from prunus.rewards import StepReward
from prunus.rewards.prefix_states import PrefixStates, Segment
from prunus.strategies import Beam, BestOfN
from prunus.testing import ScriptedGenerator, check_reward

PROMPT = "(7+5)*3-4=?"
STEPS = ("7+5=12\n", "12*3=36\n", "36-4=32\n", "answer 32")
TEXTS = [Written(STEPS[:n]) for n in (1, 2, 3, 4)]
PARTIAL = Written((*STEPS[:2], "36-"), whole=False)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("llama"), "LlamaForTokenClassification", num_key_value_heads=2)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bert"), "BertForTokenClassification")


def by_hand(folder, text, prompt=PROMPT):
    """One forward of the whole text, character by character; scores at the ends of its lines, and at the last one."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(folder).float().eval()
    ids = AutoTokenizer.from_pretrained(folder)(f"{prompt}\n{text}").input_ids
    assert len(ids) == len(prompt) + 1 + len(text)
    with torch.no_grad():
        right = model(torch.tensor([ids])).logits.softmax(-1)[0, len(prompt) + 1 :, 1]
    return [p for p, c in zip(right.tolist(), text, strict=True) if c == "\n"], right[-1].item()


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_scores_are_read_at_the_ends_of_steps(kind, request):
    folder = request.getfixturevalue(kind)
    reward = StepReward.load(folder)
    assert reward.reads_on == (kind == "llama")
    *_, score = reward.score(TEXTS, [PROMPT] * 4)
    scores, _ = by_hand(folder, "".join(STEPS) + "\n")
    assert score.value == pytest.approx(scores[-1], abs=1e-5)
    expected = {
        "min": min(scores), "max": max(scores), "mean": np.mean(scores), "product": np.prod(scores), "sum": sum(scores)
    }  # fmt: skip
    assert score.parts == pytest.approx(expected, abs=1e-5)
    assert max(scores) - min(scores) > 1e-3  # or else nothing was tested


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_half_precision_is_read_in_the_same_way(kind, request):
    folder = request.getfixturevalue(kind)
    half, whole = StepReward.load(folder, dtype="bfloat16"), StepReward.load(folder)
    assert half.model.dtype == torch.bfloat16 and half.reads_on == whole.reads_on
    for a, b in zip(half.score(TEXTS, [PROMPT] * 4), whole.score(TEXTS, [PROMPT] * 4), strict=True):
        assert a.value == pytest.approx(b.value, abs=0.02)
    with pytest.raises(ModelError, match="dtype 'int4' is not known"):
        StepReward.load(folder, dtype="int4")


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_an_unfinished_step_is_scored_where_it_has_come_to(kind, request):
    folder = request.getfixturevalue(kind)
    (score,) = StepReward.load(folder).score([PARTIAL], [PROMPT])
    scores, last = by_hand(folder, "7+5=12\n12*3=36\n36-")
    assert score.value == score.parts["partial"] == pytest.approx(last, abs=1e-5)
    assert score.parts["min"] == pytest.approx(min(scores), abs=1e-5)
    assert score.parts["sum"] == pytest.approx(sum(scores), abs=1e-5)
    (first,) = StepReward.load(folder).score([Written(("7+",), whole=False)], [PROMPT])
    assert set(first.parts) == {"partial"}  # no step is whole


def test_keeps_the_contract(llama, bert):
    for folder in (llama, bert):
        check_reward(StepReward.load(folder, batch=2), [*TEXTS, PARTIAL], [PROMPT] * 4 + ["1+2=?"])


@pytest.mark.parametrize("cache_tokens", [65_536, 40, 1])
def test_reading_on_gives_the_scores_of_reading_whole(llama, cache_tokens):
    """A search's candidates in its order: children of some parents, unfinished ones, two prompts, several batches."""
    rng = np.random.default_rng(0)
    reward, whole = StepReward.load(llama, cache_tokens=cache_tokens, batch=3), StepReward.load(llama, cache_tokens=0)
    assert not whole.reads_on
    texts = [((), "1+2=?"), ((), PROMPT)]
    for _ in range(5):
        texts = [(s, p) for s, p in texts for _ in range(2)]
        texts = [((*s, f"{rng.integers(99)}+{rng.integers(9999)}={rng.integers(10)}\n"), p) for s, p in texts]
        rng.shuffle(texts)
        texts = texts[:5]
        contents = [Written(s) for s, _ in texts] + [Written((*s, "4"), whole=False) for s, _ in texts]
        prompts = [p for _, p in texts] * 2
        for mine, other in zip(reward.score(contents, prompts), whole.score(contents, prompts), strict=True):
            assert mine.value == pytest.approx(other.value, abs=1e-5)
            assert mine.parts == pytest.approx(other.parts, abs=1e-5)
    assert reward.states.tokens <= cache_tokens
    assert reward.states.tokens == sum(s.tokens for s in reward.states._held.values())


def test_a_causal_model_reads_only_what_is_new(llama):
    """Counted at the model: tokens of the forwards, by the shape of their input."""
    reward, seen = StepReward.load(llama), []
    reward.model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    reward.score([TEXTS[0], Written(("7-5=2\n",))], [PROMPT] * 2)
    assert seen == [(1, len(PROMPT) + 1), (2, 7)]  # the prompt once, then both steps
    reward.score([TEXTS[1]], [PROMPT])
    assert seen[2:] == [(1, len("12*3=36\n"))]
    reward.score([TEXTS[1], TEXTS[0]], [PROMPT] * 2)
    assert len(seen) == 3  # all known


def test_what_it_took_is_what_was_not_read_before(llama, bert):
    reward, words = StepReward.load(llama), len(PROMPT) + 1
    siblings = [Written(("7+5=12\n",)), Written(("7-5=2\n",))]
    assert reward.took(siblings, [PROMPT] * 2, [0, 0]).tokens == words + 7 + 6
    assert reward.took([TEXTS[1]], [PROMPT], [1]).tokens == len("12*3=36\n")
    assert reward.took([TEXTS[3]], [PROMPT], [0]).tokens == words + len("".join(STEPS)) + 1
    assert reward.took([PARTIAL], [PROMPT], [2]).tokens == 3
    assert reward.took([TEXTS[1]], [PROMPT], [2]) == Cost()
    encoder = StepReward.load(bert)
    assert encoder.took([TEXTS[1]] * 2, [PROMPT] * 2, [1, 0]).tokens == 2 * (words + 7 + 8)
    # Piece by piece costs what all at once does, but for the causal half of attention.
    pieces = reward.price(0, 12) + reward.price(12, 7)
    assert pieces.tokens == reward.price(0, 19).tokens
    assert 0.9 * reward.flops(0, 19) < pieces.flops < reward.flops(0, 19)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_flops_are_those_that_torch_counts(kind, request):
    reward = StepReward.load(request.getfixturevalue(kind))
    assert reward.flops(0, 40) == pytest.approx(reward._measured(40), rel=1e-6)
    linear = sum(m.weight.numel() for m in reward.model.modules() if isinstance(m, torch.nn.Linear))
    attention = 2 * 2 * 40 * 32  # layers, queries and values, tokens, width
    assert reward.flops(0, 40) == pytest.approx(2 * 40 * (linear + attention), rel=0.01)
    assert reward.cost([3]) == reward.price(256 - 120, 48 + 3 * 24)
    assert reward.cost([300]).tokens == 256  # no text is longer


class Lines(ScriptedGenerator):
    """Scripted units shown as lines of text."""

    def render(self, nodes, view):
        shown = [[int(1000 * n.unit["values"][0]) for n in node.units(view.units)] for node in nodes]
        return [Written([f"{number}+1=2\n" for number in numbers]) for numbers in shown]


def test_a_search_is_charged_for_what_it_had_read(llama):
    """The same again with a reward that has read it all before; best-of-n reads all steps of the finished ones."""
    reward = StepReward.load(llama, step_tokens=10)
    for strategy in (Beam(2, 2), BestOfN(4)):
        spent = []
        for _ in range(2):
            tree = search(PROMPT, Lines(units=3), reward, strategy, budget=Budget(flops=10**12))
            spent.append(tree.spent.scoring)
        shown = {n: Lines(units=3).render([n], reward.view)[0] for n in tree.nodes[1:] if n.scores}
        tokens = [len(text.steps[-1]) for text in shown.values()]
        if isinstance(strategy, BestOfN):
            tokens = [len(text) for text in shown.values()]
        assert spent[0].tokens == spent[1].tokens == len(PROMPT) + 1 + sum(tokens)


def test_plain_strings_are_cut_at_the_separator(llama):
    reward = StepReward.load(llama)
    assert reward.score(["7+5=12\n12*3=36\n"], [PROMPT]) == reward.score([TEXTS[1]], [PROMPT])
    assert reward.score(["7+5=12\n12*3=36"], [PROMPT]) == reward.score([TEXTS[1]], [PROMPT])
    assert reward.score(["", TEXTS[0]], [PROMPT] * 2)[0] is None  # nothing to score


def test_a_step_may_hold_the_separator(llama):
    """Steps of several lines have one score each, at their last newline."""
    (score,) = StepReward.load(llama).score([Written(("7+5=12\n12*3=36\n", "36-4=32\nanswer 32"))], [PROMPT])
    scores, _ = by_hand(llama, "".join(STEPS) + "\n")
    assert score.parts["min"] == pytest.approx(min(scores[1], scores[3]), abs=1e-5)
    assert score.parts["sum"] == pytest.approx(scores[1] + scores[3], abs=1e-5)


def test_a_label_says_what_right_is(tmp_path, llama):
    one = write_folder(tmp_path / "one", "LlamaForTokenClassification", labels=("value",))
    assert 0 < StepReward.load(one).score([TEXTS[0]], [PROMPT])[0].value < 1
    right, wrong = (StepReward.load(llama, label=x).score([TEXTS[0]], [PROMPT])[0].value for x in ("right", 0))
    assert right + wrong == pytest.approx(1, abs=1e-6)
    three = write_folder(tmp_path / "three", "LlamaForTokenClassification", labels=("bad", "neutral", "good"))
    with pytest.raises(ModelError, match="has 3 labels, 'bad', 'neutral', 'good'; say by label= which means right"):
        StepReward.load(three)
    assert StepReward.load(three, label="good").label == 2
    with pytest.raises(SettingError, match="label = 'fine' is not allowed; label must be one of 'bad', 'neutral'"):
        StepReward.load(three, label="fine")


def test_folders_that_cannot_be_used_are_refused(tmp_path, llama):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        StepReward.load(tmp_path)
    headless = write_folder(tmp_path / "lm", "LlamaForCausalLM")
    with pytest.raises(ModelError, match=r"lacks weights of a LlamaForTokenClassification: score.*would be random"):
        StepReward.load(headless)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text((llama / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded for token classification"):
        StepReward.load(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="has no tokenizer that can be loaded"):
        StepReward.load(tmp_path / "broken")


def test_texts_beyond_the_model_s_positions_are_refused(llama):
    long = Written(["1+1=2\n"] * 30)
    with pytest.raises(PromptError, match="reads at most 128 tokens, and a solution of '1\\+2=\\?' has 186"):
        StepReward.load(llama).score([long, TEXTS[0]], ["1+2=?", PROMPT])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"cache_tokens": -1}, "cache_tokens = -1"),
        ({"separator": ""}, "separator = ''"),
        ({"prompt": "solve"}, "prompt = 'solve' is not allowed; prompt must be a text with {prompt} in it"),
    ],
)
def test_settings_are_checked(llama, setting, said):
    with pytest.raises(SettingError, match=said.replace("{", "\\{")):
        StepReward.load(llama, **setting)


def test_states_that_were_used_longest_ago_go_first():
    def segment(tokens):
        return Segment(((torch.zeros(1, tokens, 1), torch.zeros(1, tokens, 1)),), 0.5)

    states = PrefixStates(10)
    a, ab, c = ("a",), ("a", "b"), ("c",)
    states.keep(a, segment(4))
    states.keep(ab, segment(2))
    states.keep(c, segment(4))
    assert len(states.longest([a, ab])) == 2  # used last, so c goes
    states.keep(("d",), segment(1))
    assert not states.longest([c]) and len(states.longest([a, ab])) == 2 and states.tokens == 7
    states.keep(("e",), segment(5))  # then d, then what stands on a before a itself
    assert len(states.longest([a, ab])) == 1 and states.tokens == 9
