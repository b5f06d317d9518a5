"""A server of searches for tests, with the packaged language model and two rewards, and a client of OpenAI's."""

from contextlib import contextmanager
from functools import cache

from serving import serving

from prunus import pocket
from prunus.generators.text import TextGenerator
from prunus.generators.text_model import TextModel
from prunus.roles import WHOLE, FunctionReward
from prunus.server.catalogue import Catalogue
from prunus.server.model_thread import ModelThread
from prunus.server.searches import Searches
from prunus.server.settings import Limits, Settings
from prunus.tree import seed_of

PROBLEM = "(7+5)*3-4=?"


def liking(text, prompt):
    return seed_of(str(text), str(prompt)) / 2**63


def shortness(text, prompt):
    return -float(len(text))


LIKING, SHORTNESS = FunctionReward(liking, "liking", WHOLE), FunctionReward(shortness, "shortness", WHOLE)


@cache
def pocket_model():
    return TextModel.load(pocket.path("lm"))


def writer(**settings):
    return TextGenerator(pocket_model(), **{"max_tokens": 128, **settings})


def catalogue(**offered):
    models, rewards = {"pocket-lm": writer()}, {"liking": LIKING, "shortness": SHORTNESS}
    given = {"models": models, "rewards": rewards, "strategies": ("beam-2x2", "best-of", "majority-4"), **offered}
    return Catalogue(**given)


@contextmanager
def searching(offered=None, limits=None, keep_alive=10.0, parts=(), wait=True, **settings):
    """A running server; ``server.part`` is its part that searches."""
    models = ModelThread()
    own = Settings(port=0, limits=Limits(**(limits or {})), **settings)
    part = Searches(lambda: offered or catalogue(), own, models, keep_alive)
    with serving(part, *parts, limits=limits, wait=wait, **settings) as running:
        running.part = part
        yield running
    models.close()


def openai_client(server, key="none", **settings):
    from openai import OpenAI

    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60, **settings)
