"""The command for servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import Device, Dtype, given
from prunus.cli.texts import STEP_HELP, step_of

MODEL_HELP = (
    "NAME=WHAT, or WHAT alone: a folder, hub id or GGUF file, pocket-lm (the packaged one), or an OpenAI-compatible "
    "server, http://host:8000/v1#MODEL (MODEL as it is called there, if not NAME)."
)
REWARD_HELP = (
    "NAME=WHAT, or WHAT alone: a folder for token or sequence classification, prm (packaged), package.module:Name, or "
    "another server's http://host:8000/pooling#MODEL. Searches may use it, and it is served on vLLM's /v1/score, "
    "/v1/rerank and /pooling. Several times for several."
)
STRATEGY_HELP = (
    "What requests may search with, MODEL@STRATEGY: beam-4x4, best-of-16, ... or beam for any width within the limits. "
    "Names with commas."
)
LIMIT_HELP = "Change a limit, NAME=NUMBER: n, candidates, max_tokens, searches, queue, seconds, body_bytes, ..."


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help=MODEL_HELP, show_default="pocket-lm and prm, if nothing is named")
    ] = None,
    reward: Annotated[list[str] | None, typer.Option(help=REWARD_HELP, show_default=False)] = None,
    strategy: Annotated[
        str | None, typer.Option(help=STRATEGY_HELP, show_default="beam,best-of,majority,weighted with a reward")
    ] = None,
    host: Annotated[str, typer.Option(help="The address; any other than this machine's own needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 is a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="Clients' keys, one a line.", show_default="PRUNUS_API_KEYS")
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="The key of the page and /metrics.", show_default="PRUNUS_ADMIN_KEY")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name in the Host header to answer to.", show_default="this machine's")
    ] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(help="The address of a reverse proxy to believe.", show_default=False)
    ] = None,
    root_path: Annotated[str, typer.Option(help="The prefix that the proxy takes off: /prunus.")] = "",
    limit: Annotated[list[str] | None, typer.Option(help=LIMIT_HELP, show_default=False)] = None,
    trees: Annotated[Path | None, typer.Option(help="The folder of saved trees.", show_default="temporary")] = None,
    keep_trees: Annotated[float, typer.Option(min=0.01, help="Hours until a saved tree is deleted.")] = 24.0,
    server_key: Annotated[
        str | None, typer.Option(help="The variable with the key of servers among the models.", show_default=False)
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--raw", help="Prompts as a chat's turns, or as they are.", show_default="the tokenizer's"),
    ] = None,
    step: Annotated[str | None, typer.Option(help=STEP_HELP, show_default="\\n")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer if none is asked for.")] = None,
    max_step: Annotated[int | None, typer.Option(min=1, help="The longest step, in tokens.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one forward.")] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Serve searches on OpenAI's routes, and rewards on vLLM's. See docs/serving.md."""
    from prunus.commands.serve import ServeJob, named, read_settings
    from prunus.commands.serve import serve as run

    settings = read_settings(
        key_file,
        admin_key_file,
        limit or [],
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        proxies=tuple(proxy or ()),
        root_path=root_path,
        trees=trees,
        tree_seconds=keep_trees * 3600,
    )
    job = ServeJob(
        models=named("MODEL", models or []),
        rewards=named("--reward", reward or []),
        strategies=tuple(name.strip() for name in (strategy or "").split(",") if name.strip()),
        server_key=server_key,
        chat=chat,
        device=device or "cpu",
        dtype=dtype or "float32",
        writing=given(
            step=None if step is None else step_of(step),
            max_tokens=max_tokens,
            max_step=max_step,
            max_batch_tokens=max_batch_tokens,
        ),
    )
    run(job, settings, lambda what: print(what, flush=True), key_file, admin_key_file)
