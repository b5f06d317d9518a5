"""``prunus serve``: what its options name becomes the parts of a server, which then runs until it is told to end.

All that can be wrong without a model (names, keys, the address) is checked before anything is loaded; models are
loaded while the server answers already that it is not ready.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus import pocket
from prunus.errors import ServerError, SettingError

if TYPE_CHECKING:
    from prunus.roles import Generator, Reward
    from prunus.server.settings import Settings

PACKAGED, PACKAGED_REWARD = "pocket-lm", "prm"  # what is served if nothing is named
WITH_REWARD = ("beam", "best-of", "majority", "weighted")
WITHOUT_REWARD = ("majority",)
PATIENCE = 5.0  # seconds of Python's own end, after the server's
KEYS, ADMIN_KEY = "PRUNUS_API_KEYS", "PRUNUS_ADMIN_KEY"


@dataclass(frozen=True)
class ServeJob:
    """What a server serves. models and rewards: by the name that requests know them by."""

    models: dict[str, str] = field(default_factory=dict)
    """folders, hub ids, GGUF files, pocket-lm, or addresses of OpenAI-compatible servers, http://host:8000/v1#name"""
    rewards: dict[str, str] = field(default_factory=dict)
    """folders for token or sequence classification, package.module:Name, or routes of reward servers"""
    strategies: tuple[str, ...] = ()
    """such as beam-4x4, or beam for any numbers within the limits"""
    server_key: str | None = None
    """the environment variable that holds the key of servers among the models"""
    chat: bool | None = None
    device: str = "cpu"
    dtype: str = "float32"
    writing: dict[str, Any] = field(default_factory=dict)
    """settings of the generators: step, stop, max_tokens, max_step, max_batch_tokens"""


def named(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``NAME=WHAT``, or WHAT alone, which is then named by its last part. Raises SettingError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, what = text.partition("=")
        if not equals or "/" in name or ":" in name:  # an address may have = in it
            what = text
            name = _last_part(text)
        if not name or not what:
            raise SettingError(f"{option} {text!r} is not NAME=WHAT; write for example my-reward=path/to/folder")
        if name in found:
            raise SettingError(f"{option} gives the name {name!r} twice; write NAME={what} with another name")
        found[name] = what
    return found


def _last_part(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return text.rpartition("#")[2] if "#" in text else ""
    if not Path(text).exists() and ":" in text:
        return text.rpartition(":")[2]
    return Path(text).name.removesuffix(".gguf")


def read_settings(
    key_file: Path | None, admin_key_file: Path | None, limits: Sequence[str], **settings: Any
) -> Settings:
    """The server's settings, with keys from the environment and from files. Raises SettingError and FileError."""
    _need_server()
    from prunus.server.keys import read_keys
    from prunus.server.settings import Limits, Settings

    admin = read_keys(ADMIN_KEY, admin_key_file)
    if len(admin) > 1:
        raise SettingError(f"there are {len(admin)} admin keys, in {ADMIN_KEY} and the file; give one")
    known = {f.name for f in fields(Limits)}
    given: dict[str, Any] = {}
    for text in limits:
        name, _, value = text.partition("=")
        if name not in known:
            raise SettingError(f"--limit {text!r} is unknown; take one of {', '.join(sorted(known))}")
        try:
            given[name] = float(value) if "seconds" in name else int(value)
        except ValueError:
            raise SettingError(f"--limit {text!r} has no number; write for example {name}=100") from None
    return Settings(
        keys=read_keys(KEYS, key_file), admin_key=admin[0] if admin else None, limits=Limits(**given), **settings
    )  # fmt: skip


def serve(job: ServeJob, settings: Settings, told: Callable[[str], None], *secret_files: Path | None) -> None:
    """Serve until SIGTERM or Ctrl-C, and then have the process end; ``told`` is told what is served, and where.

    Raises PrunusError.
    """
    _need_server()
    from prunus.commands.text_methods import with_pattern
    from prunus.server import logs, methods
    from prunus.server.app import Part, build
    from prunus.server.catalogue import Catalogue
    from prunus.server.keys import is_shown_to_others
    from prunus.server.model_thread import ModelThread
    from prunus.server.reward_routes import RewardPart
    from prunus.server.running import prepare, run
    from prunus.server.searches import Searches

    if not job.models and not job.rewards:
        job = replace(job, models={PACKAGED: PACKAGED}, rewards={PACKAGED_REWARD: PACKAGED_REWARD})
    models = job.models
    strategies = job.strategies or (WITH_REWARD if job.rewards else WITHOUT_REWARD)
    for name in strategies:
        if methods.parse(name).needs_reward and not job.rewards:
            raise SettingError(f"--strategy {name} chooses by a reward, and there is none; give --reward NAME=FOLDER")
    if job.strategies and not models:
        raise SettingError("--strategy is for language models, and only rewards are served; name a MODEL too")
    for option, names in (("MODEL", models), ("--reward", job.rewards)):
        for name in names:
            if not (name.isascii() and name.isprintable()) or set(name) & set("@ "):
                raise SettingError(f"{option} has the name {name!r}; a name is ASCII without spaces and @")
    writing = with_pattern(job.writing)
    generators = {name: partial(_generator, name, what, job, writing) for name, what in models.items()}
    rewards = {name: partial(_reward, what, job) for name, what in job.rewards.items()}

    thread = ModelThread()
    parts: list[Part] = []
    reward_part = RewardPart(rewards, thread, settings.limits, alone=not models)
    if rewards:
        parts.append(reward_part)
    if models:

        def load() -> Catalogue:
            return Catalogue({name: make() for name, make in generators.items()}, reward_part.rewards, strategies)

        parts.append(Searches(load, settings, thread))
    app = build(settings, parts)
    server = prepare(app, settings)
    logs.start()
    for file in secret_files:
        if file is not None and is_shown_to_others(file):
            logs.log("key file is readable by others", logging.WARNING, file=str(file))
    offered = [*models, *(f"{m}@{s}" for m in models for s in strategies), *(f"reward {r}" for r in job.rewards)]
    told(f"{', '.join(offered)}\n{server.url}{'/v1' if models else ''}")
    try:
        run(server)
    finally:
        thread.close()
        # A model's call cannot be broken off, and Python would wait for it.
        leave = threading.Timer(PATIENCE, os._exit, (0,))
        leave.daemon = True
        leave.start()


def _need_server() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ServerError("prunus serve needs starlette and uvicorn; pip install 'prunus[serve]'") from error


def _generator(name: str, what: str, job: ServeJob, writing: dict[str, Any]) -> Generator:
    if what.startswith(("http://", "https://")):
        from prunus.generators.openai import OpenAIText

        url, _, theirs = what.partition("#")
        writing = {k: v for k, v in writing.items() if k != "max_batch_tokens"}
        return OpenAIText(url, theirs or name, chat=bool(job.chat), key=job.server_key, name=name, **writing)
    from prunus.commands.models import quiet_libraries
    from prunus.generators.text import TextGenerator

    quiet_libraries("transformers")
    if what == PACKAGED and not Path(what).exists():
        what = str(pocket.path("lm"))
    return TextGenerator.load(what, device=job.device, dtype=job.dtype, chat=job.chat, **writing)


def _reward(what: str, job: ServeJob) -> Reward:
    from prunus.commands.models import quiet_libraries
    from prunus.commands.text_methods import text_reward

    if Path(what).is_dir():
        quiet_libraries("transformers")
    return text_reward(what, job.device)
