"""A reward behind any web server: frames and prompts are sent to it, numbers come back.

One POST holds up to ``batch`` candidates; frames are PNG files in base64:

    {"prompts": ["a red circle", ...], "frames": [["iVBOR...", "iVBOR...", ...], ...]}

The answer is one score for each, in order: a number, or a number with its named parts. null (JSON has no NaN) says that
this candidate cannot be scored: it fails, the others go on.

    {"scores": [0.7, {"value": 0.2, "parts": {"motion": 0.4}}, null, ...]}

A whole server, which scores brightness:

    import base64, io, json
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from PIL import Image, ImageStat

    def brightness(png):
        return ImageStat.Stat(Image.open(io.BytesIO(base64.b64decode(png))).convert("L")).mean[0] / 255

    class Brightness(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scores = [sum(map(brightness, frames)) / len(frames) for frames in asked["frames"]]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"scores": scores}).encode())

    ThreadingHTTPServer(("127.0.0.1", 8500), Brightness).serve_forever()

On the command line, a module in the current folder says where the server is, and --reward names it:

    # mine.py
    from prunus.rewards import HTTPReward
    bright = HTTPReward("http://127.0.0.1:8500/score", name="bright")

    prunus video "a red circle moving right" --method beam --reward mine:bright
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.errors import require
from prunus.http import Server
from prunus.rewards.pictures import pictures, png
from prunus.roles import Reward, View
from prunus.score import Score


class HTTPReward(Reward):
    """Scores from a web server, higher is better; contents are float (f, 3, h, w) in [0, 1], of any lengths.

    url: where to POST. frames: how many evenly spaced frames of a candidate are sent at most, None: all. batch:
    candidates in one POST; several POSTs are under way at a time. units: how many of the last units it is shown, None:
    the whole candidate. ``connection``: key, time_limit, retries, back_off and concurrency of ``prunus.http.Server``.

    What scoring costs the server is not known: no forwards or FLOPs are charged to the budget, only seconds.
    Scores are as reproducible as the server. Raises ServerError, which names the reward, if the server does not answer
    in time or not as above; the search's tree is kept and can go on.
    """

    range = "unbounded"
    remote = True

    def __init__(
        self,
        url: str,
        *,
        frames: int | None = 16,
        batch: int = 8,
        units: int | None = None,
        name: str = "http-reward",
        **connection: Any,
    ) -> None:
        require(frames is None or frames >= 1, "frames", frames, "at least 1, or None for all")
        require(batch >= 1, "batch", batch, "at least 1")
        self.name, self.view, self.frames, self.batch = name, View(units), frames, batch
        self.server = Server(url, f"reward {name!r}", **connection)

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        shown = [png(pictures(content, self.frames, self.server.who)) for content in contents]
        bodies: list[dict] = [
            {"prompts": list(prompts[at : at + self.batch]), "frames": shown[at : at + self.batch]}
            for at in range(0, len(shown), self.batch)
        ]
        answers = self.server.post("", bodies)
        return [s for body, answer in zip(bodies, answers) for s in self._read(answer, len(body["prompts"]))]

    def _read(self, answer: Any, count: int) -> list[Score]:
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise self.server.error(f'answered {str(answer)[:100]}; it must answer {{"scores": [...]}}')
        if len(scores) != count:
            raise self.server.error(
                f"returned {len(scores)} scores for {count} candidates; it must return one for each"
            )
        return [self._score(score) for score in scores]

    def _score(self, given: Any) -> Score:
        if isinstance(given, dict):
            value, parts = given.get("value", "none"), given.get("parts", {})
        else:
            value, parts = given, {}
        if not isinstance(parts, dict) or not all(map(_is_number, [value, *parts.values()])):
            raise self.server.error(
                f"gave the score {str(given)[:100]}; a score is a number, null, or "
                '{"value": number, "parts": {name: number}}'
            )
        return Score(_number(value), {name: _number(part) for name, part in parts.items()})

    def spec(self) -> dict:
        return {
            "name": self.name,
            "url": self.server.address,
            "frames": self.frames,
            "batch": self.batch,
            "units": self.view.units,
        }


def _is_number(given: Any) -> bool:
    return given is None or (isinstance(given, (int, float)) and not isinstance(given, bool))


def _number(given: float | None) -> float:
    try:
        return float("nan") if given is None else float(given)
    except OverflowError:  # an integer beyond all floats
        return float("inf")
