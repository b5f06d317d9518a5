"""Server-sent events: one event a value, comments in a silence, closed when the client goes away."""

import asyncio
import json

import pytest

from prunus.server.event_stream import KEEP_ALIVE, EventStream, data


def sent_by(events, receive=None, keep_alive=10.0, send=None):
    """The messages of an answer; the client stays unless ``receive`` says otherwise."""
    messages = []

    async def stays():
        await asyncio.Event().wait()

    async def keep(message):
        messages.append(message)

    asyncio.run(EventStream(events, keep_alive)({}, receive or stays, send or keep))
    return messages


@pytest.mark.parametrize("text", ["a\nb", "data: x\n\ndata: y", "\r\n\r\nevent: z", "\u2028", "\U0001f600"])
def test_no_text_ends_an_event(text):
    event = data({"text": text})
    assert event.count(b"\n") == 2 and event.endswith(b"\n\n") and b"\r" not in event
    assert json.loads(event.removeprefix(b"data: ")) == {"text": text}


def test_pieces_go_out_one_by_one_with_comments_between():
    async def events():
        yield b"1"
        await asyncio.sleep(0.12)
        yield b"2"

    start, *pieces = sent_by(events(), keep_alive=0.05)
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream") and b"content-length" not in headers
    assert headers[b"cache-control"] == b"no-store"
    bodies = [p["body"] for p in pieces]
    assert bodies[0] == b"1" and bodies[-2:] == [b"2", b""] and bodies[1:-2] == [KEEP_ALIVE] * 2
    assert [p["more_body"] for p in pieces] == [True] * (len(pieces) - 1) + [False]


def test_the_work_is_closed_when_the_client_goes_away():
    closed, gone = [], asyncio.Event()

    async def events():
        try:
            yield b"1"
            gone.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    messages = sent_by(events(), receive)
    assert closed == [True] and not any(m.get("more_body") is False for m in messages)


def test_the_work_is_closed_when_nothing_can_be_sent():
    closed = []

    async def events():
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(True)

    async def broken(message):
        if message["type"] == "http.response.body":
            raise OSError("the connection is closed")

    with pytest.raises(OSError):
        sent_by(events(), send=broken)
    assert closed == [True]
