"""Requests as they are read: what is ignored is told, what is neutral is taken."""

from server_searches import PROBLEM, searching


def test_harmless_unknown_fields_are_ignored_and_told():
    """Their names are in a header; one that could be more than a name there is not shown."""
    with searching() as server:
        sent = {"model": "pocket-lm", "messages": [{"role": "user", "content": PROBLEM}], "user": "me", "metadata": {},
                "x\r\nEvil: 1": 1, "tools": [], "response_format": {"type": "text"}, "presence_penalty": 0,
                "stop": None, "logprobs": False, "parallel_tool_calls": True, "temperature": None}  # fmt: skip
        answer = server.post("/v1/chat/completions", sent)
        assert answer.status_code == 200
        assert answer.headers["X-Prunus-Ignored"] == "user, metadata, ?, parallel_tool_calls"
        assert "Evil" not in answer.headers
        many = {**sent, **{f"f{i}": 1 for i in range(100)}}
        assert len(server.post("/v1/chat/completions", many).headers["X-Prunus-Ignored"].split(", ")) == 20
