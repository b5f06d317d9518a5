"""The retrieval reward on a scripted agent and store, and the numbers of paper card 38."""

import numpy as np
import pytest

from prunus import Cost
from prunus.errors import ServerError, SettingError
from prunus.generators.written import Written
from prunus.rewards.retrieval import RetrievalReward, margins, search_labels
from prunus.testing import check_reward
from prunus.testing.scripted import draw

TRACES = [Written(["a\n", "b\n"]), Written(["c\n"]), Written(["d\n", "b\n"]), Written(["e\n"])]
QUESTIONS = ["q"] * 4


class Agent:
    def search_probability(self, questions, traces):
        return [draw("search", str(t)) for t in traces]

    def step_probability(self, questions, traces, evidence):
        return [0.9 if d else 0.4 for d in evidence]


class Store:
    def __init__(self):
        self.asked = []

    def query(self, texts, k):
        self.asked.append(list(texts))
        return [[f"{t.strip()}{i}" for i in range(k)] for t in texts]


class Down(Store):
    def query(self, texts, k):
        raise ServerError("no answer")


@pytest.mark.parametrize("search", ["always", "never", 0.5])
def test_it_keeps_the_contract(search):
    check_reward(RetrievalReward(Agent(), Store(), search), TRACES, QUESTIONS)


def test_each_new_step_is_looked_up_once():
    store = Store()
    scores = RetrievalReward(Agent(), store, k=2).score(TRACES, QUESTIONS)
    assert store.asked == [["b\n", "c\n", "e\n"]]  # the last steps, each once
    assert [s.value for s in scores] == [0.9] * 4
    assert scores[0].parts == {"searched": 1, "documents": 2, "unavailable": 0}


def test_nothing_is_looked_up_where_the_agent_does_not_want_it():
    store = Store()
    scores = RetrievalReward(Agent(), store, "never").score(TRACES, QUESTIONS)
    assert store.asked == [] and [s.value for s in scores] == [0.4] * 4 and scores[0].parts["searched"] == 0
    wanted = [p >= 0.5 for p in Agent().search_probability(QUESTIONS, TRACES)]
    scores = RetrievalReward(Agent(), store, 0.5).score(TRACES, QUESTIONS)
    assert 0 < sum(wanted) < 4 and [s.parts["searched"] for s in scores] == wanted
    assert [s.value for s in scores] == [0.9 if w else 0.4 for w in wanted]


def test_a_threshold_of_zero_is_always_and_searches_fall_with_it():
    ways = [RetrievalReward(Agent(), Store(), s).score(TRACES, QUESTIONS) for s in ("always", 0.0, 0.3, 0.6, 1.0)]
    assert ways[0] == ways[1]
    searches = [sum(s.parts["searched"] for s in scores) for scores in ways]
    assert searches == sorted(searches, reverse=True) and searches[-1] == 0


def test_a_store_that_fails_leaves_a_score_without_evidence():
    scores = RetrievalReward(Agent(), Down()).score(TRACES, QUESTIONS)
    assert [s.value for s in scores] == [0.4] * 4
    assert scores[0].parts == {"searched": 1, "documents": 0, "unavailable": 1}


def test_costs_and_settings():
    assert RetrievalReward(Agent(), Store(), price=Cost(1, 30)).cost([2, 5]) == Cost(2, 60)
    for options in ({"search": "sometimes"}, {"search": 1.5}, {"k": 0}):
        with pytest.raises(SettingError):
            RetrievalReward(Agent(), Store(), **options)


def test_the_cards_margin_shift():
    with_documents, without = margins(np.array([0.9, 0.6]))
    assert (with_documents, without) == (pytest.approx(2.197225, abs=1e-6), pytest.approx(0.405465, abs=1e-6))
    assert abs(without - with_documents) == pytest.approx(1.791759, abs=1e-6)


def test_half_of_the_prefixes_want_a_search_at_the_median():
    shift = np.array([0.1, 0.4, 0.2, 0.9])
    assert search_labels(np.zeros(4), shift).tolist() == [0, 1, 0, 1]
    assert search_labels(shift, np.zeros(4), eps=0.15).tolist() == [0, 1, 1, 1]
    assert search_labels(np.zeros(4), np.ones(4)).tolist() == [0, 0, 0, 0]  # ties: none moves more than the median
