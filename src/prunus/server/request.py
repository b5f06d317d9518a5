"""Requests for text, read from their JSON: each field is used, refused because it would change the answer, or ignored.

Nothing in a request is a path, an address, an expression or a template; names are looked up in what is offered.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from prunus.budget import Budget
from prunus.errors import PrunusError, SettingError
from prunus.generators.prompt import Prompt
from prunus.server import methods
from prunus.server.catalogue import PLAIN, Catalogue, Model
from prunus.server.engine import Job
from prunus.server.errors import Refusal, refusal
from prunus.server.fields import boolean, check_text, integer, number, wrong
from prunus.server.methods import Choice
from prunus.server.settings import Limits

USED = (
    "model messages prompt n stream stream_options seed temperature top_p top_k max_tokens max_completion_tokens stop "
    "prunus"
).split()
# What would change the answer and is not done here, and the values with which it changes nothing.
MEANINGFUL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("tools", "functions", "logit_bias"), ([], {})),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "top_logprobs", "min_p", "min_tokens"), (0,)),
    **dict.fromkeys(("repetition_penalty", "length_penalty", "best_of"), (1,)),
    "suffix": ("",),
    "logprobs": (False, 0),
    **dict.fromkeys(("echo", "use_beam_search", "ignore_eos", "continue_final_message"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "return_tokens_as_token_ids"), (False,)),
    **dict.fromkeys(("add_generation_prompt", "skip_special_tokens"), (True,)),
    **dict.fromkeys(
        (
            "audio web_search_options prediction guided_json guided_regex guided_choice guided_grammar "
            "structured_outputs stop_token_ids bad_words allowed_token_ids prompt_logprobs prompt_embeds "
            "chat_template chat_template_kwargs documents truncate_prompt_tokens"
        ).split(),
        (),
    ),
}
IGNORED_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
MOST_IGNORED = 20  # names in the header
STOP_CHARACTERS = 256
ROLES = ("system", "developer", "user", "assistant")
OWN = ("strategy", "reward", "budget", "tree", "keep", "branch", "n", "iterations")
"""Keys inside ``prunus``."""


@dataclass(frozen=True)
class Asked:
    """A request that was understood. ``jobs``: a search for each prompt; ``n`` answers of each are returned."""

    name: str  # the model's, as it was asked for
    model: Model
    choice: Choice | None  # None: plain sampling
    reward: str | None  # its name here
    jobs: tuple[Job, ...]
    prompt_tokens: tuple[int, ...]
    n: int
    seed: int
    stream: bool
    include_usage: bool
    tree: bool
    ignored: tuple[str, ...]


def read(body: Mapping[str, Any], chat: bool, catalogue: Catalogue, limits: Limits) -> Asked:
    """Everything that can be checked before a search is queued. Raises Refusal (400, 404)."""
    body = {name: value for name, value in body.items() if value is not None}
    ignored = _ignored(body, "prompt" if chat else "messages")
    own = _own(body)
    model, choice, reward_name = _model(body, own, catalogue)
    reward = PLAIN if reward_name is None else catalogue.rewards[reward_name]
    n = integer(body, "n", 1, 1, limits.n)
    choice_n = choice or Choice("best-of", {"n": n})
    side, total = choice_n.candidates
    if side > limits.candidates:
        raise wrong("n" if choice is None else "strategy", f"one of at most {limits.candidates} candidates, and this "
                    f"has {side}", "above_limit")  # fmt: skip
    if n > side:
        raise wrong("n", f"at most the {side} candidates of {body['model']}", "above_limit")
    prompts = _messages(body, model, limits) if chat else _prompts(body, model, limits)
    length = _length(body, model, limits, total * len(prompts))
    seed = integer(body, "seed", None, -(2**63), 2**63 - 1)
    seed = secrets.randbelow(2**31) if seed is None else seed
    budget = _budget(own)
    try:
        generator = model.adjusted(
            raw=not chat,
            temperature=number(body, "temperature", None, 0.0, 2.0),
            top_p=_top_p(body),
            top_k=integer(body, "top_k", None, 0, 2**31),
            stop=_stop(body, limits),
            max_tokens=length,
        )
        read_prompts = [model.read(prompt, not chat) for prompt in prompts]
        strategy = choice_n.strategy(reward.name)
    except PrunusError as error:
        raise refusal(error) from error
    about = {"model": body["model"], "strategy": strategy.spec(), "n": n, "plain": choice is None}
    jobs = [Job(p, generator, {reward.name: reward}, strategy, budget, seed, about) for p in read_prompts]
    return Asked(
        name=body["model"],
        model=model,
        choice=choice,
        reward=reward_name,
        jobs=tuple(jobs),
        prompt_tokens=tuple(len(getattr(p, "tokens", ())) for p in read_prompts),
        n=n,
        seed=seed,
        stream=boolean(body, "stream", False),
        include_usage=_include_usage(body),
        tree=boolean(own, "tree", False),
        ignored=ignored,
    )


def _ignored(body: Mapping[str, Any], other: str) -> tuple[str, ...]:
    """The names of fields that mean nothing here. Raises Refusal for one that would change the answer."""
    for name, value in body.items():
        if name == other:
            raise Refusal(400, f"{name} does not belong to this route", param=name, code="unsupported_field")
        if name in MEANINGFUL and not any(value == v and isinstance(value, bool) == isinstance(v, bool)
                                          for v in MEANINGFUL[name]):  # fmt: skip
            raise Refusal(400, f"{name} is not supported: it would change the answer, and searches do not heed it",
                          param=name, code="unsupported_field")  # fmt: skip
    odd = [n if IGNORED_NAME.fullmatch(n) else "?" for n in body if n not in USED and n not in MEANINGFUL]
    return tuple(dict.fromkeys(odd))[:MOST_IGNORED]


def _own(body: Mapping[str, Any]) -> dict[str, Any]:
    own = body.get("prunus", {})
    if not isinstance(own, dict):
        raise wrong("prunus", "an object")
    if odd := [name for name in own if name not in OWN]:
        shown = odd[0] if IGNORED_NAME.fullmatch(odd[0]) else "?"
        raise Refusal(400, f"prunus.{shown} is unknown; known are {', '.join(OWN)}", param="prunus", code="unknown_key")
    return {name: value for name, value in own.items() if value is not None}


def _model(
    body: Mapping[str, Any], own: Mapping[str, Any], catalogue: Catalogue
) -> tuple[Model, Choice | None, str | None]:
    """The model, the strategy and the reward's name. Raises Refusal for what is not offered."""
    name, _, strategy = check_text(body.get("model"), "model", 200).partition("@")
    if name not in catalogue.served:
        raise Refusal(404, f"model must be one of {', '.join(n for n, _ in catalogue.names())}", param="model",
                      code="model_not_found")  # fmt: skip
    if "strategy" in own:
        strategy = check_text(own["strategy"], "prunus.strategy", 100)
    numbers = {n: _count(own, n) for n in ("keep", "branch", "n", "iterations") if n in own}
    if not strategy:
        if "@" in body["model"] or numbers or "reward" in own:
            raise wrong("model", f"a model and a strategy, such as {name}@{(*catalogue.strategies, 'best-of-8')[0]}")
        return catalogue.served[name], None, None
    try:
        choice = methods.offered(strategy, numbers, catalogue.strategies)
    except SettingError as error:
        param, status = ("prunus", 400) if "strategy" in own or numbers else ("model", 404)
        raise Refusal(status, str(error), param=param, code="strategy_not_offered") from None
    asked = check_text(own.get("reward", next(iter(catalogue.rewards), "")), "prunus.reward", 200)
    if asked and asked not in catalogue.rewards:
        raise wrong("prunus.reward", f"one of {', '.join(catalogue.rewards) or 'none'}", "reward_not_offered")
    return catalogue.served[name], choice, asked if choice.needs_reward or "reward" in own else None


def _count(own: Mapping[str, Any], name: str) -> int:
    if name not in own or isinstance(own[name], bool) or not isinstance(own[name], int) or not 1 <= own[name] <= 9999:
        raise wrong(f"prunus.{name}", "a whole number from 1 to 9999")
    return own[name]


def _budget(own: Mapping[str, Any]) -> Budget:
    """Limits of the search as ``{"tokens": 2000, "seconds": 5}``."""
    given = own.get("budget", {})
    known = [f.name for f in fields(Budget)]
    if not isinstance(given, dict) or any(name not in known for name in given):
        raise wrong("prunus.budget", f"an object of {', '.join(known)}")
    for name, value in given.items():
        whole = name in ("nfe", "tokens")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 1e18:
            raise wrong(f"prunus.budget.{name}", f"a {'whole ' if whole else ''}number above 0")
    return Budget(**given)


def _top_p(body: dict[str, Any]) -> float | None:
    top_p = number(body, "top_p", None, 0.0, 1.0)
    if top_p == 0:
        raise wrong("top_p", "above 0, at most 1")
    return top_p


def _stop(body: Mapping[str, Any], limits: Limits) -> list[str] | None:
    """The stop texts, none of which is empty."""
    given = body.get("stop")
    if given is None:
        return None
    several = given if isinstance(given, list) else [given]
    if len(several) > limits.stops:
        raise wrong("stop", f"at most {limits.stops} texts, and here are {len(several)}", "above_limit")
    for text in several:
        if check_text(text, "stop", STOP_CHARACTERS) == "":
            raise wrong("stop", "texts of at least one character")
    return several


def _length(body: dict[str, Any], model: Model, limits: Limits, candidates: int) -> int | None:
    """Tokens of an answer, such that all candidates together stay within the limits; None: as the model has it."""
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    if {"max_tokens", "max_completion_tokens"} <= body.keys():
        raise Refusal(
            400, "give max_tokens or max_completion_tokens, not both", param="max_tokens", code="invalid_value"
        )
    most = min(limits.max_tokens, limits.search_tokens // candidates)
    asked = integer(body, name, None, 1, limits.max_tokens)
    if most < 1 or (asked is not None and asked > most):
        raise wrong(
            name,
            f"at most {most} here: all {candidates} candidates together may have {limits.search_tokens} tokens",
            "above_limit",
        )
    return most if asked is None and model.longest > most else asked


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise wrong("stream_options", "an object")
    if options and not body.get("stream"):
        raise wrong("stream_options", "left out without stream")
    return boolean(options, "include_usage", False)


# ---- prompts ---------------------------------------------------------------------------------------------------------


def _prompts(body: Mapping[str, Any], model: Model, limits: Limits) -> list[str]:
    """A text, tokens, or a list of either."""
    if not model.takes_text:
        raise Refusal(400, f"{model.name} answers chats only: /v1/chat/completions", param="model", code="chat_only")
    given = body.get("prompt")
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(several) > limits.n:
        raise wrong("prompt", f"at most {limits.n} prompts", "above_limit")
    total, made = 0, list[str]()
    for one in several:
        if isinstance(one, list):
            if not one or len(one) > limits.prompt_characters:
                raise wrong("prompt", f"of 1 to {limits.prompt_characters} tokens")
            if any(isinstance(t, bool) or not isinstance(t, int) for t in one):
                raise wrong("prompt", "a text, or a list of texts, tokens, or lists of tokens")
            try:
                made.append(Prompt(model.text_of(one), tokens=one))
            except SettingError as error:
                raise Refusal(400, str(error), param="prompt", code="invalid_token") from None
            total += len(one)
        else:
            made.append(check_text(one, "prompt", limits.prompt_characters))
            total += len(made[-1])
    if total > limits.prompt_characters:
        raise wrong("prompt", f"at most {limits.prompt_characters} characters in all", "above_limit")
    return made


def _messages(body: Mapping[str, Any], model: Model, limits: Limits) -> list[str]:
    """The prompt of a chat: the text of a single turn, or all messages."""
    given = body.get("messages")
    if not isinstance(given, list) or not given or not all(isinstance(m, dict) for m in given):
        raise wrong("messages", "a list of at least one {role, content}")
    turns = [{"role": _role(m), "content": _content(m)} for m in given]
    total = sum(len(turn["content"]) for turn in turns)
    if total > limits.prompt_characters:
        raise wrong("messages", f"at most {limits.prompt_characters} characters in all, and they have {total}",
                    "above_limit")  # fmt: skip
    if turns[-1]["role"] != "user":
        raise wrong("messages", "such that the last is the user's: an answer that was begun is not gone on with")
    if len(turns) == 1:
        return [turns[0]["content"]]
    if not model.takes_turns:
        raise Refusal(400, f"{model.name} has no chat template; send one message of the user", param="messages",
                      code="no_chat_template")  # fmt: skip
    return [Prompt(_as_read(turns), turns)]


def _as_read(turns: Sequence[Mapping[str, str]]) -> str:
    """What rewards read of a chat: the user's only turn, or the turns of both. Instructions of the system are left out,
    as rewards are trained on questions."""
    said = [t for t in turns if t["role"] in ("user", "assistant")]
    return said[0]["content"] if len(said) == 1 else "\n\n".join(f"{t['role']}: {t['content']}" for t in said)


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise wrong("messages.role", f"one of {', '.join(ROLES)}")
    if odd := [n for n in ("tool_calls", "function_call", "audio") if message.get(n)]:
        raise Refusal(400, f"messages.{odd[0]} is not supported", param=f"messages.{odd[0]}", code="unsupported_field")
    return "system" if role == "developer" else role


def _content(message: Mapping[str, Any]) -> str:
    """A text, or parts that are all texts."""
    content = message.get("content")
    if isinstance(content, list):
        if not content or not all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            raise wrong("messages.content", 'a text, or parts of {"type": "text"}: other kinds are not read')
        return "".join(check_text(p.get("text"), "messages.content", 2**30) for p in content)
    return check_text(content, "messages.content", 2**30)
