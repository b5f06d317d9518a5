"""The page: what it needs to be let in, what it shows, and that nothing written by others is more than text in it."""

import asyncio
import json
import re
import threading
import time
from dataclasses import replace

import pytest
from server_engine import until
from server_searches import LIKING, PROBLEM, catalogue, searching, writer
from serving import ADMIN, KEY, bearer
from tiny_text import model as byte_model

from prunus.generators.text import TextGenerator
from prunus.roles import FunctionReward
from prunus.server.keys import COOKIE

EVIL = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def server():
    with searching(keys=(KEY,), admin_key=ADMIN) as running:
        yield running


class Evil(TextGenerator):
    """A model that answers what a hostile one would."""

    def grow(self, asks):
        return [replace(g, unit={**g.unit, "text": EVIL + g.unit["text"]}) for g in super().grow(asks)]


def ask(server, content=PROBLEM, model="pocket-lm@beam-2x2", **more):
    sent = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    return server.post("/v1/chat/completions", sent, KEY)


def events(server, count, seconds=20, **headers):
    """So many events as (kind, data)."""
    found, kind = [], ""
    with server.client.stream("GET", "/live/events", headers=headers, timeout=seconds) as answer:
        assert answer.status_code == 200, answer.status_code
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((kind, json.loads(line.removeprefix("data: "))))
                if len(found) == count:
                    return found


def signed_in(server, key=ADMIN):
    return server.client.post("/live/session", json={"key": key})


# ---- who is let in ---------------------------------------------------------------------------------------------------


def test_the_page_is_served_under_a_strict_policy_and_tells_nothing(server):
    ask(server)
    for path in ("/", "/live/page.js", "/live/page.css"):
        answer = server.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert answer.status_code == 200 and PROBLEM not in answer.text
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = server.get("/").text
    assert "<script>" not in page and "style=" not in page and "onclick" not in page


def test_events_need_the_admin_key_or_a_session(server):
    assert server.get("/live/events").status_code == 401
    assert server.get("/live/events", KEY).status_code == 401  # a client's key is not enough
    assert server.client.get(f"/live/events?key={ADMIN}").status_code == 401
    assert events(server, 1, **bearer(ADMIN))[0][0] == "snapshot"


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(server):
    began = time.monotonic()
    assert signed_in(server, "not-the-admin-key-000").status_code == 401 and time.monotonic() - began > 0.4
    answer = signed_in(server)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status_code == 204 and ADMIN not in cookie
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    value = {"Cookie": f"{COOKIE}={answer.cookies[COOKIE]}"}
    server.client.cookies.clear()
    assert events(server, 1, **value)[0][0] == "snapshot"
    assert server.client.delete("/live/session", headers=value).status_code == 204
    server.client.cookies.clear()
    assert server.client.get("/live/events", headers=value).status_code == 401
    assert server.client.post("/live/session", data={"key": ADMIN}).status_code == 415  # a form of another site
    assert server.client.delete("/live/session").status_code == 401


def test_behind_a_proxy_with_tls_the_cookie_is_secure():
    with searching(admin_key=ADMIN, proxies=("127.0.0.1",), root_path="/prunus") as server:
        answer = server.client.post("/live/session", json={"key": ADMIN}, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in answer.headers["Set-Cookie"] and "Path=/prunus" in answer.headers["Set-Cookie"]


def test_without_an_admin_key_the_events_are_closed():
    with searching() as server:
        assert server.get("/live/events").status_code == 403


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_a_search_is_told_as_it_grows(server):
    server.part.live.shown.clear()
    answer = ask(server, seed=3).json()
    until(lambda: any(s["ended"] for s in server.part.live.shown.values()))
    (_, snapshot), (_, numbers) = events(server, 2, **bearer(ADMIN))
    (search,) = snapshot
    assert search["state"] == "finished" and search["prompt"] == PROBLEM and search["seed"] == 3
    assert search["key"].startswith("key-") and KEY not in json.dumps(snapshot)
    chosen = [n["text"] for n in search["nodes"] if n["status"] == "chosen"]
    assert "".join(chosen) == answer["choices"][0]["message"]["content"]
    assert {n["status"] for n in search["nodes"]} <= {"chosen", "closed", "done", "pruned", "open"}
    assert len(search["nodes"]) == answer["usage"]["prunus"]["candidates"]
    assert numbers["running"] == 0 and numbers["generated"] >= answer["usage"]["prunus"]["tokens_generated"]


def test_only_so_many_ended_searches_are_kept(server, monkeypatch):
    monkeypatch.setattr("prunus.server.live.ENDED", 3)
    for seed in range(6):
        ask(server, model="pocket-lm", seed=seed, max_tokens=2)
    live = server.part.live
    until(lambda: len([s for s in live.shown.values() if s["ended"]]) == 3)
    assert [s["seed"] for s in live.shown.values()] == [3, 4, 5] and not live._numbers and not live._sent


def test_a_page_that_falls_behind_begins_anew(server, monkeypatch):
    monkeypatch.setattr("prunus.server.live.BEHIND", 2)
    live, told = server.part.live, []

    async def fall_behind():
        watcher = asyncio.Queue()
        live._watchers.add(watcher)
        for i in range(5):
            live._publish("numbers", i)
        while not watcher.empty():
            told.append(watcher.get_nowait())
        return watcher in live._watchers

    assert not asyncio.run_coroutine_threadsafe(fall_behind(), live._loop).result(10)
    assert told == [("numbers", 0), ("numbers", 1), None]


# ---- in a browser ----------------------------------------------------------------------------------------------------


def test_in_chromium(browser, tmp_path_factory):
    """Signing in, a tree that grows while it is watched, evil prompts and answers as text, signing out."""
    from selenium.webdriver.common.by import By

    gate = threading.Semaphore(0)

    def slow(text, prompt):
        gate.acquire(timeout=20)
        return LIKING.function(text, prompt)

    def wait(condition):
        until(lambda: condition() or None)

    def texts(selector):
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return browser.execute_script(script, selector)

    def candidates(which=".node:not(.root)"):
        """Equal pruned siblings are one card, with their number."""
        return sum(int((re.search("\u00d7([0-9]+)", text) or [0, 1])[1]) for text in texts(which))

    evil = Evil(byte_model(), step=4, max_tokens=8)
    offered = catalogue(models={"pocket-lm": writer(), "evil": evil})
    offered.rewards["slow"] = FunctionReward(slow, "slow")
    with searching(offered, admin_key=ADMIN) as server:
        browser.set_window_size(1280, 900)
        browser.get(server.url)
        wait(lambda: browser.find_element(By.ID, "sign-in").is_displayed())
        browser.get_log("browser")  # the refusal of the events, which is how the page learns that it must sign in
        browser.find_element(By.ID, "key").send_keys("wrong-key-0123456789")
        browser.find_element(By.CSS_SELECTOR, "#sign-in button").click()
        wait(lambda: "not the admin key" in browser.find_element(By.ID, "refused").text)
        browser.get_log("browser")
        browser.find_element(By.ID, "key").send_keys(ADMIN)
        browser.find_element(By.CSS_SELECTOR, "#sign-in button").click()
        wait(lambda: browser.find_element(By.ID, "main").is_displayed())
        assert browser.execute_script("return document.cookie") == "" and ADMIN not in browser.current_url

        sent = {"model": "pocket-lm@beam-2x2", "seed": 1, "prunus": {"reward": "slow"},
                "messages": [{"role": "user", "content": PROBLEM}]}  # fmt: skip
        asking = threading.Thread(target=server.post, args=("/v1/chat/completions", sent))
        asking.start()
        gate.release(4)  # the first step's candidates
        wait(lambda: candidates() == 4)
        assert texts("#list .state") == ["running"] and browser.find_element(By.ID, "prompt").text == PROBLEM
        gate.release(4)
        wait(lambda: candidates() == 8)
        assert candidates(".node.pruned") == 4
        gate.release(1000)
        asking.join(30)
        wait(lambda: texts("#list .state") == ["finished"])
        wait(lambda: "answer" in browser.find_element(By.ID, "answer").text)
        assert browser.find_element(By.ID, "answer-title").text == "Answer"
        browser.find_element(By.CSS_SELECTOR, ".node.chosen").click()
        assert "chosen" in browser.find_element(By.ID, "detail").text
        folder = tmp_path_factory.mktemp("screenshots")
        assert browser.save_screenshot(str(folder / "live.png"))

        evil_prompt = {"model": "evil", "messages": [{"role": "user", "content": EVIL}]}
        assert server.post("/v1/chat/completions", evil_prompt).status_code == 200
        wait(lambda: EVIL in "".join(texts(".node .said")))
        assert EVIL in browser.find_element(By.ID, "answer").text
        wait(lambda: EVIL in texts("#list .what"))
        assert browser.title == "Prunus: searches"
        assert browser.find_element(By.ID, "prompt").text == EVIL
        assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")
        refused = browser.execute_script(
            "try { document.body.innerHTML = '<img src=x>'; return 'set' } catch (error) { return error.name }"
        )
        assert refused == "TypeError"  # not even the page's own script may make HTML of a string
        for width in (1280, 400):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 400}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert [e for e in browser.get_log("browser") if "TrustedHTML" not in e["message"]] == []
        browser.find_element(By.ID, "leave").click()
        wait(lambda: browser.find_element(By.ID, "sign-in").is_displayed())
        assert not texts("#list li") and EVIL not in browser.execute_script("return document.body.textContent")
