"""The whole path of a real checkpoint at a tenth of its size: convert, then a search from T5 to mp4, on a CPU.

    python benchmarks/full_path.py                 # 145 M random transformer parameters; writes 1.2 GB, takes minutes
    python benchmarks/full_path.py --smoke         # tiny, to see that everything runs: for CI

A random generator is written as Self-Forcing's trainer writes one (float32, ``generator_ema``, FSDP's names), beside a
diffusers folder with Wan's own autoencoder (its real configuration: 127 M parameters, 4 frames for each latent one,
8 x 8 pixels), a UMT5 encoder and a Unigram tokenizer. ``prunus convert`` and ``prunus video --model`` then run as a
user runs them. Random weights make noise: what is shown is that all of it runs, how long it takes and in how much
memory. Printed: seconds and peak resident bytes of each command, and the video's size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from prunus.report.media import read_video

PROMPT = "a paper boat drifts down a rainy street"
SENTENCES = (PROMPT, "the quick brown fox jumps over the lazy dog", "a red circle moving right and a blue square")
TENTH = {"num_attention_heads": 6, "num_layers": 12, "ffn_dim": 4480, "text_dim": 512}
TINY = {"num_attention_heads": 1, "num_layers": 2, "ffn_dim": 64, "text_dim": 32}
REWARDS = """
def sharp(frames, prompt):
    return float((frames[..., 1:] - frames[..., :-1]).abs().mean())

def steady(frames, prompt):
    return -float((frames[1:] - frames[:-1]).abs().mean())
"""
ORIGINAL = (
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"), ("attn1", "self_attn"), ("attn2", "cross_attn"), ("to_out.0", "o"), ("to_q", "q"),
    ("to_k", "k"), ("to_v", "v"), ("norm2", "norm3"), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"),
)  # fmt: skip
"""Parts of diffusers' names and what the original code calls them."""


def original(name: str) -> str:
    """A parameter's name as the original code has it, in FSDP's wrapping."""
    for ours, theirs in ORIGINAL:
        name = name.replace(ours, theirs)
    if name.endswith("scale_shift_table"):
        name = name.replace("scale_shift_table", "modulation" if name.startswith("blocks.") else "head.modulation")
    return f"model._fsdp_wrapped_module.{name}"


def write_checkpoint(path: Path, sizes: dict[str, int]) -> int:
    """Returns the number of the transformer's parameters."""
    torch.manual_seed(0)
    weights = WanTransformer3DModel(attention_head_dim=128, **sizes).state_dict()
    torch.save({"generator_ema": {original(name): tensor for name, tensor in weights.items()}}, path)
    return sum(tensor.numel() for tensor in weights.values())


def write_base(folder: Path, width: int, smoke: bool) -> dict[str, int]:
    """Autoencoder, text encoder and tokenizer; returns the parameters of the first two."""
    torch.manual_seed(1)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    layers = {"d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2} if smoke else {"num_layers": 8, "num_heads": 6}
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=tokenizer.get_vocab_size(), d_model=width, **layers))
    vae = AutoencoderKLWan(**({"base_dim": 8, "num_res_blocks": 1} if smoke else {}))
    encoder.save_pretrained(folder / "text_encoder")
    vae.save_pretrained(folder / "vae")
    parts = {"text_encoder": encoder, "vae": vae}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """A command of Prunus in a process of its own: its seconds, and the most bytes that it had resident."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "prunus", *arguments], cwd=folder, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"prunus {arguments[0]} ended with exit code {process.returncode}")
    return {"command": f"prunus {arguments[0]}", "seconds": round(time.perf_counter() - began, 1),
            "peak_bytes": resident(usage)}  # fmt: skip


def resident(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def full_path(folder: Path, size: tuple[int, int], frames: int, smoke: bool) -> dict[str, Any]:
    """Everything, in ``folder``; returns the figures."""
    sizes = TINY if smoke else TENTH
    parameters = {"transformer": write_checkpoint(folder / "self_forcing_dmd.pt", sizes)}
    parameters |= write_base(folder / "base", sizes["text_dim"], smoke)
    (folder / "looks.py").write_text(REWARDS)
    stages = [run(folder, "convert", "self_forcing_dmd.pt", "model", "--base", "base")]
    streaming = folder / "model" / "streaming.json"
    streaming.write_text(json.dumps(json.loads(streaming.read_text()) | {"size": size}))
    rewards = ("--reward", "looks:sharp", "--reward", "looks:steady")
    search = ("--frames", str(frames), "--keep", "2", "--branch", "2", *rewards, "--out", "run")
    stages.append(run(folder, "video", PROMPT, "--model", "model", *search))
    video = read_video(folder / "run" / "video.mp4")
    result = json.loads((folder / "run" / "result.json").read_text())["videos"][0]["chosen"]
    return {
        "parameters": parameters,
        "checkpoint_bytes": (folder / "self_forcing_dmd.pt").stat().st_size,
        "stages": stages,
        "latent_frames": frames,
        "video": list(video.shape),
        "nfe": result["nfe"],
        "tflops": round(result["flops"] / 1e12, 3),
        "search_seconds": round(result["seconds"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=6, help="latent frames")
    parser.add_argument("--smoke", action="store_true", help="tiny models, to see that everything runs")
    args = parser.parse_args()
    size = (32, 48) if args.smoke else tuple(args.size)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        figures = full_path(Path(folder), size, args.frames, args.smoke)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
