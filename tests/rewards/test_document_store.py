"""The document store against BM25 by hand."""

import math
import sys

import pytest

from prunus.errors import SettingError
from prunus.rewards.document_store import DocumentStore

DOCUMENTS = [
    "Rachel keeps bees.",
    "Paul sells honey; Paul keeps no bees.",
    "Honey from Rachel is sold by Paul.",
    "Nobody sells flowers.",
]
WORDS = [["rachel", "keeps", "bees"], ["paul", "sells", "honey", "paul", "keeps", "bees"],
         ["honey", "rachel", "sold", "paul"], ["nobody", "sells", "flowers"]]  # without stop words # fmt: skip


def bm25(query, document, k1=1.5, b=0.75):
    """Lucene's: idf = ln(1 + (N - n + .5) / (n + .5)), without the factor k1 + 1."""
    mean = sum(map(len, WORDS)) / len(WORDS)
    total = 0.0
    for word in query:
        n, f = sum(word in w for w in WORDS), document.count(word)
        idf = math.log(1 + (len(WORDS) - n + 0.5) / (n + 0.5))
        total += idf * f / (f + k1 * (1 - b + b * len(document) / mean))
    return total


def test_it_finds_what_bm25_ranks_first():
    store = DocumentStore(DOCUMENTS)
    for text, words in {
        "Who sells bees?": ["who", "sells", "bees"],
        "Paul": ["paul"],
        "Rachel honey": ["rachel", "honey"],
    }.items():
        scores = [bm25(words, w) for w in WORDS]
        ranked = sorted((i for i in range(4) if scores[i] > 0), key=lambda i: (-scores[i], i))
        assert store.query([text], 4) == [[DOCUMENTS[i] for i in ranked]]
        assert store.query([text], 2) == [[DOCUMENTS[i] for i in ranked[:2]]]


def test_what_shares_no_word_is_not_found_and_ties_go_to_the_earlier():
    store = DocumentStore(["a red fox", "a red cat", "a red dog"])
    assert store.query(["xylophone", "", "red"], 2) == [[], [], ["a red fox", "a red cat"]]
    assert store.query([], 2) == []


def test_what_is_missing_is_told(monkeypatch):
    with pytest.raises(SettingError, match="at least one text"):
        DocumentStore([])
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(SettingError, match=r"prunus\[retrieval\]"):
        DocumentStore(DOCUMENTS)
