"""The world of look-ups: its facts, its policy, its judge, and the agent that is trained on it."""

import itertools

import numpy as np
import pytest

from prunus import search
from prunus.errors import PromptError
from prunus.generators.written import Written
from prunus.rewards.document_store import DocumentStore
from prunus.roles import FunctionReward
from prunus.strategies import BestOfN
from prunus.testing import check_generator
from prunus.worlds.lookups import LookupAgent, LookupPolicy, Table, answer, judge, labels, parse
from prunus.worlds.lookups.agent import logistic
from prunus.worlds.lookups.table import PEOPLE, fact, read_fact

TABLE = Table(3)
PROMPT = TABLE.prompts(1, 4)[0]


def solution(prompt=PROMPT, wrong=()):
    chain = TABLE.chain(prompt)
    steps = [fact(a, b) + "\n" for a, b in itertools.pairwise(chain)]
    return ["Julia Reed reports to Dan Cole.\n" if i in wrong else step for i, step in enumerate(steps)]


def test_the_policy_keeps_its_contract():
    check_generator(LookupPolicy(TABLE, belief=0.5), TABLE.prompts(2, 4))


def test_the_table_is_one_cycle():
    people = [PEOPLE[0]]
    while (boss := TABLE.above[people[-1]]) != PEOPLE[0]:
        people.append(boss)
    assert sorted(people) == sorted(PEOPLE) and len(PEOPLE) == 192
    assert Table(3).above == TABLE.above != Table(4).above


def test_a_step_is_right_if_it_and_all_before_it_are():
    assert labels(solution(), PROMPT, TABLE) == [True] * 4
    assert labels(solution(wrong=(1,)), PROMPT, TABLE) == [True, False, False, False]
    assert labels([*solution(), solution()[0]], PROMPT, TABLE)[-1] is False  # a step too many
    assert judge("".join(solution()), PROMPT, TABLE) == 1.0
    assert judge("".join(solution()[:3]), PROMPT, TABLE) == 0.0 and judge("who knows", PROMPT, TABLE) == 0.0
    assert answer("".join(solution())) == TABLE.chain(PROMPT)[-1] and answer("") is None


def test_prompts_are_read_or_refused():
    assert parse("Who is 6 levels above Rachel Baker?") == (6, "Rachel Baker")
    for bad in ("Who is 6 levels above Nobody Known?", "Who is 0 levels above Rachel Baker?", "Rachel Baker"):
        with pytest.raises(PromptError, match="no question of this world"):
            parse(bad)


def test_documents_are_the_facts_among_real_sentences():
    documents = TABLE.documents()
    facts = [f for f in map(read_fact, documents) if f]
    assert dict(facts) == TABLE.above and len(documents) - len(facts) == len(TABLE.distractors) == 151
    covered = sum(read_fact(d) is not None for d in TABLE.documents(0.5))
    assert 70 < covered < 122


def test_the_policy_is_right_as_often_as_it_knows():
    policy = LookupPolicy(TABLE, knows=0.7, belief=0.5)
    steps = [
        n for p in TABLE.prompts(40, 4) for n in search(p, policy, FunctionReward(lambda *_: 0.0), BestOfN(4)).nodes[1:]
    ]
    said = [read_fact(n.unit["text"]) for n in steps]
    right = [TABLE.above[a] == b for a, b in said]
    assert np.mean(right) == pytest.approx(0.7, abs=0.06)
    wrong = [pair for pair, ok in zip(said, right, strict=True) if not ok]
    by_person = {}
    for a, b in wrong:
        by_person.setdefault(a, []).append(b)
    often = [max(map(bosses.count, bosses)) / len(bosses) for bosses in by_person.values() if len(bosses) >= 5]
    assert np.mean(often) > 0.4  # half of them are one belief
    assert all(a != b for a, b in said)


def test_the_agent_tells_right_steps_by_their_documents():
    store, policy = DocumentStore(TABLE.documents()), LookupPolicy(TABLE)
    trees = [search(p, policy, FunctionReward(lambda *_: 0.0), BestOfN(4)) for p in TABLE.prompts(40, 4)]
    traces = [(t.prompt, t.generator.output(n)) for t in trees for n in t.finished]
    agent = LookupAgent.fit(traces, TABLE, store)
    other = Table(9)  # of which it has seen nothing
    prompt = other.prompts(1, 1)[0]
    a, b = other.chain(prompt)
    steps = [Written([fact(a, who) + "\n"]) for who in (b, "Dan Cole")]
    documents = DocumentStore(other.documents()).query([s.steps[-1] for s in steps], 3)
    right, wrong = agent.step_probability([prompt] * 2, steps, documents)
    assert right > 0.6 and wrong < 0.1
    blind = agent.step_probability([prompt] * 2, steps, [[], []])
    assert blind[0] == blind[1] and wrong < blind[0] < right
    searches = agent.search_probability([prompt] * 2, steps)
    assert searches[0] == searches[1] and 0 <= searches[0] <= 1


def test_logistic_regression_finds_the_weights():
    rng = np.random.default_rng(0)
    x = np.c_[np.ones(20000), rng.normal(size=20000)]
    y = (rng.random(20000) < 1 / (1 + np.exp(-(x @ [0.5, -1.5])))).astype(float)
    assert logistic(x, y, 1e-9) == pytest.approx([0.5, -1.5], abs=0.07)
