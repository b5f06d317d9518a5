"""A world of chained look-ups in a table of facts, each of which stands in a document among others (paper 38).

A table says whom each of 192 people reports to; a question follows it some levels up, ``Who is 6 levels above Rachel
Baker?``, and a solution names a fact a line, ``Rachel Baker reports to Paul Stone.``. A step is right if it and all
before it are; the answer is the person that the last step names.
"""

from prunus.worlds.lookups.agent import LookupAgent
from prunus.worlds.lookups.policy import LookupPolicy
from prunus.worlds.lookups.table import Table, answer, judge, labels, parse

__all__ = ["LookupAgent", "LookupPolicy", "Table", "answer", "judge", "labels", "parse"]
