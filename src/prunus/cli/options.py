"""Options that several commands have, and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

METHOD_HELP = "stream-t1, stream-t1-published, stream-t1-ttsnap, beam, best-of-n or plain."
METHODS_HELP = "Names with commas, settings after colons (stream-t1:noise=fresh:cap=0); best-of-n is always among them."
REWARD_HELP = (
    "Your own reward, package.module:Name: a prunus.Reward or a function f(frames, prompt) -> float, higher is better. "
    "It chooses the video. For stream-t1 it takes the long reward's role (the clip so far) and the packaged frame "
    "reward scores new chunks; given twice, the first is the short reward and the second the long one."
)
LATENT_FRAMES_HELP = (
    "Latent frames: 1, or a multiple of the model's chunk. An autoencoder that compresses time by 4, as Wan's does, "
    "shows 4 (frames - 1) + 1 frames: 21 become 81."
)
EULER_HELP = (
    "Denoise in so many Euler steps, which keep their noise, so that estimates foretell the end; the model's own few "
    "steps draw fresh noise in between."
)
BUDGET_HELP = "The most to spend on a video: nfe=N, flops=N or seconds=N, several with commas."
Model = Annotated[Path | None, typer.Option(help="A diffusers folder with a streaming.json.", show_default="packaged")]
Keep = Annotated[int | None, typer.Option(min=1, help="Candidates that survive a chunk (stream-t1, beam).")]
First = Annotated[
    int | None,
    typer.Option(
        min=1, help="Candidates of the first chunk (stream-t1, beam).", show_default="the model's, or keep x branch"
    ),
]
Branch = Annotated[int | None, typer.Option(min=1, help="Children of each survivor (stream-t1, beam).")]
Rewards = Annotated[list[str] | None, typer.Option("--reward", help=REWARD_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; the result as plain lines.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="cpu")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="float32")]
EulerSteps = Annotated[int | None, typer.Option(min=1, help=EULER_HELP, show_default="the model's few steps")]
Frames = Annotated[int | None, typer.Option(help="1, or a multiple of the model's chunk.", show_default="21")]


def given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
