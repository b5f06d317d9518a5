"""A conversion never holds much more than one shard: the resident memory of a process that converts."""

import subprocess
import sys
from pathlib import Path

import original_wan as wan
import pytest
import torch
from safetensors.torch import save_file

SHARD = 10_000_000
CONVERT = """
import sys
from pathlib import Path
import diffusers.loaders.single_file_utils, huggingface_hub, safetensors.torch
from prunus.generators.wan_checkpoint import Checkpoint
from prunus.generators.wan_conversion import plan, write_transformer

def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = resident("VmRSS")
checkpoint = Checkpoint.open(Path(sys.argv[1]))
write_transformer(plan(checkpoint.tensors), checkpoint, Path(sys.argv[2]), shard=int(sys.argv[3]))
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of resident memory")
def test_one_shard_is_in_memory_at_a_time(tmp_path):
    """Of 143 MB; mapped files count as well. Written as one shard, the same model shows that the count sees it all."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=128, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
        ffn_dim=2048, num_layers=8,
    )  # fmt: skip
    tensors = wan.original(model)
    size = sum(tensor.nbytes for tensor in tensors.values())
    torch.save({"generator": tensors}, tmp_path / "whole.pt")
    save_file(tensors, tmp_path / "whole.safetensors")
    assert size > 140e6

    def peak(source, shard):
        arguments = (tmp_path / source, tmp_path / f"{source}-{shard}", str(shard))
        return int(subprocess.run([sys.executable, "-c", CONVERT, *arguments], capture_output=True, check=True).stdout)

    assert peak("whole.pt", SHARD) < SHARD + 40e6
    assert peak("whole.safetensors", SHARD) < SHARD + 40e6
    assert peak("whole.pt", 2 * size) > size
