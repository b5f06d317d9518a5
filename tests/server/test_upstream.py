"""Models behind another OpenAI-compatible server: what it is asked, what it never gets, what it may not do to us."""

import threading

import pytest
from language_server import LanguageServer
from loopback import Answer, serve
from server_searches import LIKING, openai_client, searching
from serving import KEY

from prunus import search
from prunus.errors import SettingError
from prunus.generators.openai import OpenAIText
from prunus.generators.openai_probe import QUESTIONS
from prunus.server.catalogue import Catalogue
from prunus.strategies import BestOfN

PROMPT = "one two three"


def far(site, **settings):
    given = {"max_tokens": 24, "share": False, "back_off": 0.01, "time_limit": 20.0, **settings}
    return OpenAIText(f"{site.url}/v1", "m", **given)


def offered(site, **settings):
    return Catalogue({"far": far(site, **settings)}, {"liking": LIKING}, ("best-of", "beam-2x2"))


def ask(server, content=PROMPT, path="chat/completions", **more):
    said = {"messages": [{"role": "user", "content": content}]} if path.startswith("chat") else {"prompt": content}
    return server.post(f"/v1/{path}", {"model": "far@best-of-3", "seed": 2, **said, **more}, KEY)


def test_answers_are_those_of_the_search_offline_and_usage_is_what_was_billed():
    with serve(LanguageServer()) as site, searching(offered(site), keys=(KEY,)) as server:
        answer = ask(server, "one two", "completions", temperature=0.8)
        alone = search("one two", far(site, temperature=0.8), LIKING, BestOfN(n=3, reward="liking"), seed=2)
        assert answer.json()["choices"][0]["text"] == str(alone.best().output)
        usage = answer.json()["usage"]
        assert usage["prunus"]["tokens_processed"] == alone.spent.total.tokens
        assert usage["prompt_tokens"] == alone.generator.usage.prompt - probed(alone) > 0


def probed(tree):
    """The prompt tokens of the questions that find out what the server can do: this server's characters."""
    return len(QUESTIONS[0])


def test_it_never_gets_what_the_client_sent_as_its_key():
    with serve(LanguageServer()) as site, searching(offered(site), keys=(KEY,)) as server:
        assert ask(server).status_code == 200
        assert site.headers and not any("authorization" in {n.lower() for n in h} for h in site.headers)
        assert not any(KEY in str(h) for h in site.headers)
        assert not any("user" in body or "prunus" in body for body in site.seen)


def test_redirects_are_not_followed():
    """Neither a client's text nor anything else goes where the server points."""
    with serve(LanguageServer()) as other, serve(LanguageServer()) as site:
        with searching(offered(site), keys=(KEY,)) as server:
            site.answer = lambda body: Answer({}, 307, {"Location": f"{other.url}/v1/completions"})
            answer = ask(server)
            assert answer.status_code in (500, 502) and not other.seen
            assert site.url not in answer.text  # where the models are is not told


def test_when_it_fails_the_client_reads_that_and_no_more():
    with serve(LanguageServer()) as site, searching(offered(site), keys=(KEY,)) as server:
        site.answer = lambda body: Answer({"error": "the secret of the upstream"}, 500)
        answer = ask(server)
        assert answer.status_code in (500, 502) and "secret" not in answer.text and site.url not in answer.text


def test_chats_go_there_with_all_their_turns():
    """A server of chats only is asked for chats, and completions are refused here."""
    with serve(LanguageServer()) as site, searching(offered(site, chat=True, step=None), keys=(KEY,)) as server:
        turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"},
                 {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]  # fmt: skip
        before = len(site.seen)
        assert server.post("/v1/chat/completions", {"model": "far", "messages": turns}, KEY).status_code == 200
        assert site.seen[before]["messages"] == turns
        refused = ask(server, path="completions")
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "chat_only"
        assert "top_k" in ask(server, top_k=5).json()["error"]["message"]
        assert ask(server, stop=["a", "b", "c", "d"]).status_code == 400


def test_a_server_that_does_not_answer_keeps_ours_from_being_ready():
    with serve(lambda body: Answer({}, 404)) as site, searching(offered(site), wait=False) as server:
        server.thread.join(30)
        assert not server.thread.is_alive() and "no such address" in str(server.server.life.failure)


def test_its_stream_is_settled_text_too():
    with serve(LanguageServer()) as site, searching(offered(site), keys=(KEY,)) as server:
        client = openai_client(server, KEY)
        messages = [{"role": "user", "content": PROMPT}]
        stream = list(client.chat.completions.create(model="far@beam-2x2", messages=messages, seed=3, stream=True))
        whole = client.chat.completions.create(model="far@beam-2x2", messages=messages, seed=3)
        said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert said == whole.choices[0].message.content


def test_what_it_is_asked_for_comes_side_by_side():
    """Two searches of different settings are both under way there: neither waits for the other's call."""
    both = threading.Barrier(2, timeout=15)
    language = LanguageServer()

    def answer(body):
        if body["prompt"].startswith("together"):
            both.wait()
        return language(body)

    with serve(language) as site, searching(offered(site, step=None, concurrency=1), keys=(KEY,)) as server:
        site.answer = answer
        statuses = []
        threads = [
            threading.Thread(
                target=lambda heat: statuses.append(
                    ask(server, "together", "completions", model="far", temperature=heat).status_code
                ),
                args=(heat,),
            )
            for heat in (0.5, 0.9)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert statuses == [200, 200]


@pytest.mark.parametrize("name", ["", "a b", "a@b", "é"])
def test_names_that_cannot_be_asked_for(name):
    with serve(LanguageServer()) as site, pytest.raises(SettingError, match="name"):
        Catalogue({name: far(site)})
