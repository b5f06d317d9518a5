"""The command line as tests call it, with a user's own rewards beside it (fixture ``here``)."""

import pytest

from prunus.cli import main

REWARDS = """
stop_after = None

def red(frames, prompt):
    global stop_after
    if stop_after is not None:
        stop_after -= 1
        if stop_after < 0:
            raise KeyboardInterrupt
    return float(frames[:, 0].mean() - frames[:, 2].mean())

def calm(frames, prompt):
    return -float(frames.std())

def broken(frames, prompt):
    raise ValueError("no such colour")

def word(frames, prompt):
    return "good"

number = 3
"""
BOTH = ("--reward", "user_rewards:calm", "--reward", "user_rewards:red")


def run(*arguments):
    """Run the command line; returns its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code or 0
