"""A document store that is searched by BM25, over documents of any text.

Words are weighed as Lucene does (bm25s's default). Equal scores go to the earlier document, so that a batch finds what
single queries find. Documents that share no word with a query are not returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunus.errors import SettingError, require


class DocumentStore:
    """``documents``, held in memory with their index."""

    def __init__(self, documents: Sequence[str]) -> None:
        """Raises SettingError if there are none, or if the package bm25s is not installed."""
        try:
            import bm25s
        except ImportError:
            raise SettingError(
                "searching documents needs the package bm25s; install it with: pip install 'prunus[retrieval]'"
            ) from None
        require(len(documents) > 0, "documents", documents, "at least one text")
        self.documents = tuple(documents)
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        self._index.index(self._words(self.documents), show_progress=False)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        return self._tokenize(list(texts), return_ids=False, show_progress=False)

    def query(self, texts: Sequence[str], k: int) -> list[list[str]]:
        """The ``k`` best documents for each text, or fewer, best first."""
        return [self._best(words, k) for words in self._words(texts)]

    def _best(self, words: list[str], k: int) -> list[str]:
        if not words:
            return []
        scores = self._index.get_scores(words)
        return [self.documents[i] for i in np.argsort(-scores, kind="stable")[:k] if scores[i] > 0]
