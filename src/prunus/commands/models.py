"""The models that a command works with: the generator, its prompts, and the judge of its world."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.errors import FileError, PromptError, PrunusError, SettingError
from prunus.score import Score

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo

JUDGES = {"sprites": "prunus.worlds.sprites.judge"}
DTYPES = ("float32", "bfloat16", "float16")


def quiet_libraries(*libraries: str) -> None:
    """No progress bars or advice of the libraries between our own lines; None named: diffusers and transformers."""
    import importlib
    import warnings

    warnings.filterwarnings("ignore", module="(diffusers|transformers|torch|huggingface_hub)")
    for library in libraries or ("diffusers", "transformers"):
        logging = importlib.import_module(f"{library}.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def load_generator(
    folder: str | Path, frames: int, device: str, dtype: str, euler_steps: int | None = None
) -> StreamingVideo:
    """The streaming model in a folder; ``euler_steps``: that many Euler steps instead of the model's own few.

    Raises SettingError or ModelError with the remedy.
    """
    if dtype not in DTYPES:
        raise SettingError(f"dtype {dtype!r} is unknown; take one of {', '.join(DTYPES)}")
    quiet_libraries()
    import torch

    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds for a device that is not there
        reason = str(error).splitlines()[0]
        raise SettingError(f"device {device!r} cannot be used here ({reason}); take cpu, or cuda or mps") from None
    from prunus.generators.streaming_video import StreamingVideo

    generator = StreamingVideo.load(folder, frames, device, dtype)
    if euler_steps is None:
        return generator
    return StreamingVideo(generator.model, frames, generator.model.streaming.euler(euler_steps))


def check_prompts(generator: StreamingVideo, prompts: Sequence[str], file: Path | None = None) -> None:
    """Raise PromptError for the first prompt that the model does not understand."""
    for prompt in prompts:
        try:
            generator.model.text(prompt)
        except PromptError as error:
            raise PromptError(f"{file}: {error}" if file else str(error)) from error


def read_prompts(file: Path) -> list[str]:
    """One prompt per line; empty lines do not count."""
    try:
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise FileError(
            f"the prompts in {file} cannot be read: {reason}; give a text file, one prompt a line"
        ) from None
    if not prompts:
        raise FileError(f"{file} holds no prompts; write one a line")
    return prompts


def judge(world: str | None, frames: Any, prompt: str) -> Score | None:
    """What the exact judge of the model's world says; None if there is none or it does not know the prompt."""
    if world not in JUDGES:
        return None
    try:
        return importlib.import_module(JUDGES[world]).judge(frames.numpy(), prompt)
    except PrunusError:
        return None
