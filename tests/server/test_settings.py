"""Settings, keys, quotas, fields and the metrics' text, without a server."""

import re
from dataclasses import fields as fields_of
from hmac import compare_digest
from pathlib import Path

import pytest
from serving import ADMIN, KEY, OTHER_KEY
from starlette.requests import Request

from prunus.errors import FileError, SettingError
from prunus.server import fields, keys
from prunus.server.errors import Refusal
from prunus.server.keys import Keys, is_shown_to_others, owner_of, read_keys
from prunus.server.metrics import Distribution, Metric, write
from prunus.server.quotas import Quotas
from prunus.server.settings import Limits, Settings, is_loopback


def asking(key):
    return Request({"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())]})


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_an_address_of_this_machine_needs_no_key(host):
    assert is_loopback(host) and Settings(host=host).keys == ()


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "localhost.example.com", "", "1270.0.1"]
)
def test_any_other_address_needs_one(host):
    with pytest.raises(SettingError, match="no key is set"):
        Settings(host=host)
    with pytest.raises(SettingError, match="no key is set"):
        Settings(host=host, admin_key=ADMIN)
    assert Settings(host=host, keys=(KEY,)).host == host


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"keys": ("short",)}, "at least 16"),
        ({"keys": ("with a space in it",)}, "without spaces"),
        ({"keys": ("ключ-ключ-ключ-ключ",)}, "ASCII"),
        ({"admin_key": "short"}, "the admin key is not allowed"),
        ({"keys": (KEY,), "admin_key": KEY}, "one of the clients' keys"),
        ({"port": -1}, "port = -1"),
        ({"root_path": "prunus"}, "root_path"),
        ({"tree_seconds": 0}, "tree_seconds = 0"),
    ],
)
def test_settings_are_checked_and_keys_are_not_shown(given, says):
    with pytest.raises(SettingError, match=says) as refused:
        Settings(**given)
    assert "short" not in str(refused.value)


def test_settings_do_not_show_their_keys():
    shown = repr(Settings(keys=(KEY, OTHER_KEY), admin_key=ADMIN))
    assert not [key for key in (KEY, OTHER_KEY, ADMIN) if key in shown]


@pytest.mark.parametrize("value", [0, -1, True, None, "3", float("nan"), float("inf")])
def test_limits_cannot_be_turned_off(value):
    with pytest.raises(SettingError, match="candidates"):
        Limits(candidates=value)
    assert Limits(requests_per_minute=None).requests_per_minute is None


def test_the_documented_limits_are_the_defaults():
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d ]+|none) \|", text, re.M))
    defaults = {f.name: "none" if f.default is None else str(int(f.default)) for f in fields_of(Limits)}
    assert {name: value.replace(" ", "") for name, value in told.items()} == defaults


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_keys_come_from_the_environment_and_a_file(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"# clients\n{KEY}\n\n  {OTHER_KEY} \n# {ADMIN}\n")
    monkeypatch.setenv("SOME_KEYS", f"third-key-0123456789, {KEY}")
    assert read_keys("SOME_KEYS", file) == ("third-key-0123456789", KEY, OTHER_KEY)
    monkeypatch.delenv("SOME_KEYS")
    assert read_keys("SOME_KEYS", None) == ()
    with pytest.raises(FileError, match="cannot be read"):
        read_keys("SOME_KEYS", tmp_path / "none")
    file.write_text("# none\n")
    with pytest.raises(SettingError, match="has no key"):
        read_keys("SOME_KEYS", file)


def test_a_file_that_others_may_read_is_noticed(tmp_path):
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o644)
    assert is_shown_to_others(file)
    file.chmod(0o600)
    assert not is_shown_to_others(file)


def test_a_key_is_compared_with_all_keys_in_constant_time(monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((len(a), len(b)))
        return compare_digest(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    known = Keys([KEY, OTHER_KEY, "third-key-0123456789"], ADMIN)
    for key in (KEY, "third-key-0123456789", "x", "y" * 10_000, "ключ"):
        compared.clear()
        try:
            assert known.client(asking(key)) == owner_of(key)
        except Refusal as refused:
            assert refused.status == 401
        assert compared == [(32, 32)] * 3


def test_an_owner_is_stable_and_not_the_key():
    assert owner_of(KEY) == owner_of(KEY) and owner_of(KEY) != owner_of(OTHER_KEY)
    assert len(owner_of(KEY)) == 16 and KEY[:6] not in owner_of(KEY)


def test_sessions_end_and_are_bounded(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    known = Keys((), ADMIN)

    def holds(token):
        request = Request({"type": "http", "headers": [(b"cookie", f"{keys.COOKIE}={token}".encode())]})
        try:
            known.check_admin(request)
        except Refusal:
            return False
        return True

    first = known.open_session()
    assert holds(first) and not holds(first[:-1]) and len(first) >= 43
    now[0] = keys.SESSION_SECONDS + 1
    assert not holds(first)
    tokens = [known.open_session() for _ in range(keys.SESSIONS + 5)]
    assert [holds(t) for t in tokens] == [False] * 5 + [True] * keys.SESSIONS
    known.close_session(Request({"type": "http", "headers": [(b"cookie", f"{keys.COOKIE}={tokens[-1]}".encode())]}))
    assert not holds(tokens[-1])


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_requests_come_back_steadily():
    now = [0.0]
    quotas = Quotas(Limits(requests_per_minute=6), lambda: now[0])
    for _ in range(6):
        quotas.admit("a")
    with pytest.raises(Refusal, match="its 6 requests a minute") as refused:
        quotas.admit("a")
    assert (refused.value.status, refused.value.retry_after) == (429, 10.0)
    quotas.admit("b")
    now[0] = 10.0
    quotas.admit("a")
    with pytest.raises(Refusal):
        quotas.admit("a")
    now[0] = 1000.0
    for _ in range(6):  # and never more than a minute's
        quotas.admit("a")
    with pytest.raises(Refusal):
        quotas.admit("a")


def test_tokens_that_overdraw_are_waited_for():
    now = [0.0]
    quotas = Quotas(Limits(tokens_per_minute=600), lambda: now[0])
    quotas.admit("a")
    quotas.charge("a", 1000)
    with pytest.raises(Refusal, match="its 600 tokens a minute") as refused:
        quotas.admit("a")
    assert refused.value.retry_after == pytest.approx(40.1)  # 401 at 10 a second
    now[0] = 40.2
    quotas.admit("a")


def test_without_quotas_nothing_is_counted():
    quotas = Quotas(Limits())
    for _ in range(10_000):
        quotas.admit("a")
    quotas.charge("a", 10**9)
    quotas.admit("a")


# ---- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, False, 1.0, "1", [1], {}, 0, 9])
def test_whole_numbers(value):
    with pytest.raises(Refusal) as refused:
        fields.integer({"n": value}, "n", 1, 1, 8)
    assert (refused.value.status, refused.value.param) == (400, "n")
    assert refused.value.code == ("above_limit" if value == 9 else "invalid_value")
    assert [fields.integer({"n": v}, "n", 7, 1, 8) for v in (1, 8, None)] == [1, 8, 7]


@pytest.mark.parametrize("value", [True, "1", [], -0.1, 2.1, float("nan")])
def test_numbers(value):
    with pytest.raises(Refusal):
        fields.number({"t": value}, "t", 1.0, 0.0, 2.0)
    assert [fields.number({"t": v}, "t", 1.0, 0.0, 2.0) for v in (0, 2, 0.5, None)] == [0.0, 2.0, 0.5, 1.0]


@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_truths(value):
    with pytest.raises(Refusal):
        fields.boolean({"b": value}, "b", False)
    assert [fields.boolean({"b": v}, "b", True) for v in (True, False, None)] == [True, False, True]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_the_text_of_metrics():
    seconds = Distribution((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        seconds.observe(value)
    text = write(
        [
            Metric("a_total", "counter", 'A "count"\nof\\', [({"route": '/x"\\\n'}, 3), ({}, 0.5)]),
            Metric("s", "histogram", "S.", [({"r": "b"}, seconds)]),
        ]
    )
    assert text == (
        '# HELP a_total A "count"\\nof\\\\\n# TYPE a_total counter\n'
        'a_total{route="/x\\"\\\\\\n"} 3\na_total 0.5\n'
        "# HELP s S.\n# TYPE s histogram\n"
        's_bucket{r="b",le="0.1"} 2\ns_bucket{r="b",le="1"} 3\ns_bucket{r="b",le="+Inf"} 4\n'
        's_sum{r="b"} 7.65\ns_count{r="b"} 4\n'
    )
