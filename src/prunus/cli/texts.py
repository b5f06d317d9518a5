"""The command for text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import AsJson, Device, Dtype, Quiet, given
from prunus.errors import SettingError

STRATEGY_HELP = (
    "Names with commas, settings after colons (beam:keep=2:branch=8). Several are compared at equal tokens, best-of-n "
    "always among them: plain, best-of-n, beam, dvts, lookahead, rebase, particles, halving, mcts, early-rejection, "
    "adaptive-sampling, process-advantage, process-reward-agent, ..."
)
WIDTHS_HELP = "Compare at these numbers of candidates: n, keep x branch, or a quarter of the iterations."
TEXT_REWARD_HELP = (
    "prm or orm (packaged, of arithmetic), a folder for token or sequence classification, a reward server's "
    "http://host:8000/pooling#MODEL (or /score, /rerank), or package.module:Name: a prunus.Reward or a "
    "function f(text, prompt) -> float, higher is better."
)
STEP_HELP = "What ends a step: a text (\\n is a line's end), a number of tokens, or re: and a regular expression."
TEMPLATE_HELP = "What the model reads for a problem: a text or a file with {prompt} in it (examples, an instruction)."
CHECK_HELP = "Who says what is right: package.module:function(text, row), instead of comparing with the answer."


@app.command()
def solve(
    prompt: Annotated[str | None, typer.Argument(help="The problem.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="A file of problems, one JSON object a line.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Where in a row: prompt=NAME, answer=NAME.", show_default=False)
    ] = None,
    world: Annotated[str | None, typer.Option(help="Problems of a built-in world instead: arithmetic.")] = None,
    split: Annotated[str, typer.Option(help="Which of its problems: dev, train or report.")] = "dev",
    operations: Annotated[int | None, typer.Option(help="Only those with so many operations: 2 to 8.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many problems.")] = None,
    check: Annotated[str | None, typer.Option(help=CHECK_HELP)] = None,
    strategy: Annotated[
        str | None, typer.Option(help=STRATEGY_HELP, show_default="beam with a reward, else best-of-n")
    ] = None,
    widths: Annotated[str | None, typer.Option(help=WIDTHS_HELP, show_default="2,4,8,16 for several")] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            help="best (by the reward), majority or weighted (votes).", show_default="best with a reward, else majority"
        ),
    ] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Candidates that survive a step.")] = None,
    branch: Annotated[int | None, typer.Option(min=1, help="Children of each survivor.")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Candidates of the first step (beam).")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Candidates (best-of-n, rebase, particles).")] = None,
    budget: Annotated[str | None, typer.Option(help="The most for a problem: tokens=N, nfe=N, flops=N, ...")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A folder, hub id or GGUF file; a server's name of its model.", show_default="packaged"),
    ] = None,
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server's base, http://host:8000/v1.")] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw", help="The prompt as a turn of a chat, or as it is.", show_default="the tokenizer's"
        ),
    ] = None,
    template: Annotated[str | None, typer.Option(help=TEMPLATE_HELP, show_default="{prompt}")] = None,
    reward: Annotated[
        str | None, typer.Option(help=TEXT_REWARD_HELP, show_default="prm for the packaged model, else none: votes")
    ] = None,
    step: Annotated[str | None, typer.Option(help=STEP_HELP, show_default="\\n")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of tokens; 0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    max_step: Annotated[int | None, typer.Option(min=1, help="The longest step, in tokens.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one forward.")] = None,
    together: Annotated[
        int, typer.Option(min=1, help="Problems that are solved in one batch: more are faster, and take more memory.")
    ] = 16,
    device: Device = None,
    dtype: Dtype = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new one in runs/")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in --out.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Finish the interrupted run in this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have a language model answer better by search; compare strategies by accuracy at equal tokens."""
    from prunus.commands.display import Show
    from prunus.commands.solve import print_solved
    from prunus.commands.solve import resume as finish
    from prunus.commands.solve import solve as run
    from prunus.commands.solve_job import SolveJob

    show = Show(quiet)
    if resume is not None:
        if (prompt, data, world, model, server) != (None,) * 5:
            raise SettingError("--resume takes all settings from its folder; leave PROMPT, --data, --model, ... out")
        result = finish(resume, show)
    else:
        writing = given(
            step=step_of(step) if step is not None else None,
            stop=[_unescaped(text) for text in stop] if stop else None,
            template=_template(template) if template is not None else None,
            temperature=temperature, max_tokens=max_tokens, max_step=max_step, max_batch_tokens=max_batch_tokens,
        )  # fmt: skip
        if (model, server, reward) == (None,) * 3 and choose != "majority" and strategy != "plain":
            reward = "prm"  # it has learned to judge what the packaged model writes
        job = SolveJob(
            prompt=prompt,
            data=None if data is None else str(data.resolve()),
            fields=_fields(field or []),
            world=world,
            split=split,
            operations=operations,
            limit=limit,
            check=check,
            strategies=[name.strip() for name in _split_variants(strategy or ("beam" if reward else "best-of-n"))],
            widths=_numbers("--widths", widths) if widths else [],
            options=given(keep=keep, branch=branch, first=first, n=n),
            choose=choose or ("best" if reward else "majority"),
            budget=budget,
            seed=seed,
            model=model,
            server=server,
            chat=chat,
            writing=writing,
            reward=reward,
            together=together,
            device=device or "cpu",
            dtype=dtype or "float32",
        )
        result = run(job, out, force, show)
    if as_json:
        print(json.dumps(result))
    else:
        print_solved(result, quiet)
    if any(line["failed"] for line in result["strategies"]):
        raise typer.Exit(1)


def _split_variants(text: str) -> list[str]:
    """Names at the commas that stand outside brackets, so that settings may be lists."""
    return [name for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def _fields(pairs: list[str]) -> dict[str, str]:
    fields = dict(pair.partition("=")[::2] for pair in pairs)
    if wrong := [k for k, v in fields.items() if k not in ("prompt", "answer") or not v]:
        raise SettingError(f"--field {wrong[0]!r} is unknown; write prompt=NAME or answer=NAME")
    return fields


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(n) for n in text.split(",")]
    except ValueError:
        raise SettingError(f"{option} {text!r} are not numbers; write for example 2,4,8") from None


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _template(text: str) -> str:
    """The text, or what a file holds, without the line's end that editors put last."""
    if "{prompt}" in text:
        return _unescaped(text)
    try:
        return Path(text).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        raise SettingError(f"--template {text!r} is neither a text with {{prompt}} in it nor a file of one") from None


def step_of(text: str) -> str | int:
    return int(text) if text.isdecimal() else _unescaped(text)
