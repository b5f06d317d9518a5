"""Shared fixtures: a whole streaming-video folder of the real architectures, tiny and random; a browser."""

import json
import shutil
import sys

import pytest

GRAMMAR = {
    "pattern": r"a (\w+) \w+ [a-z ]+?( and a (?!\1 )\w+ \w+ [a-z ]+)?",
    "words": "a {colour} {shape} {motion}",
}
STREAMING = {
    "timesteps": [1000, 750, 500, 250],
    "shift": 5.0,
    "chunk": 3,
    "window": 12,
    "sink": 3,
    "max_sink": 15,
    "text_length": 12,
    "trained_frames": 120,
    "fps": 8,
    "size": [64, 64],
    "grammar": GRAMMAR,
    "world": "sprites",
}


def write_video_folder(folder, layers=2, heads=2):
    """A diffusers folder with a random transformer, autoencoder, text encoder and tokenizer, in float32."""
    import torch
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    words = "<pad> </s> <unk> a and red green blue circle square cross moving standing left right up down still".split()
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    config = UMT5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=48,
        num_layers=layers,
    ).save_pretrained(folder / "transformer")
    AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, False, False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        scale_factor_temporal=1,
    ).save_pretrained(folder / "vae")
    (folder / "streaming.json").write_text(json.dumps(STREAMING))
    return folder


def pytest_addoption(parser):
    parser.addoption("--soak", type=float, default=6.0, help="seconds for which many clients ask the server")


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    return write_video_folder(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="session")
def video_model(video_folder):
    from prunus.generators.video_model import VideoModel

    return VideoModel.load(video_folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A fresh working folder with a module of rewards, which ``--reward`` finds there."""
    from command_line import REWARDS

    (tmp_path / "user_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "user_rewards", raising=False)
    return tmp_path


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium with a fresh profile."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[test]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    opened.set_script_timeout(60)
    yield opened
    opened.quit()
