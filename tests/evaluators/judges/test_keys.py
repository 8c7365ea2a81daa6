"""Keys, URLs, proxies, certificates: one line before the first call, and no key in any text."""

from __future__ import annotations

import html
import json
import os
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.errors import ConfigError
from evaluators.judges import Backend, CallError, make
from evaluators.judges.openai.keys import Mask, read_key
from tests.evaluators.conftest import KEY, write_pairs
from tests.evaluators.judges.asking import ask, judge_of
from tests.evaluators.vendors import Answer, refusal

KEYS = st.text(st.sampled_from(string.ascii_letters + string.digits + "-_+/=.%&\"'\\"), min_size=16, max_size=60)
FORMS = [
    lambda key: key,
    repr,
    json.dumps,
    lambda key: quote(key, safe=""),
    lambda key: quote(key, safe="").lower(),
    html.escape,
    lambda key: key[:-3],
    lambda key: key[2:],
    lambda key: f"Bearer {key}\\n",
]


@given(KEYS.filter(lambda key: any(sign.isdigit() for sign in key)), st.text(max_size=40), st.sampled_from(FORMS))
def test_nothing_of_a_key_is_left_in_any_form(key, around, form):
    hidden = Mask(key)(f"{around}{form(key)}{around}")
    assert not [at for at in range(len(key) - 7) if key[at : at + 8] in hidden and key[at : at + 8] not in around * 2]


@pytest.mark.parametrize("key", ["", "k", "x", "none", "EMPTY", "token", "sk-", "local", "lm-studio", "not-needed"])
def test_a_dummy_key_garbles_no_message(key):
    words = "HTTP 400: this model's maximum context length is 2048 tokens; exceeds, EMPTYs, notlm-studios"
    assert Mask(key)(words) == words


@given(st.text(max_size=300))
def test_a_message_without_the_key_stays_as_it_is(text):
    assert Mask(KEY)(text) == text or any(KEY[at : at + 8] in text for at in range(len(KEY)))


@pytest.mark.parametrize("value", [f"{KEY}\n", f"{KEY}\r\n", f"  {KEY}\t", f"\ufeff{KEY}"])
def test_a_key_is_read_without_what_stands_around_it(server, monkeypatch, value):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    ask(judge_of(server))
    sent = {name.lower(): text for name, text in server.headers[0].items()}
    assert sent["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", ["sk-“quoted”", "sk-a\nsk-b", "sk-a b", "sk-\x00", "sk-é", "sk-\u200bx", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_by_its_variables_name(monkeypatch, value):
    monkeypatch.setattr(os, "environ", {"MY_KEY": value})
    with pytest.raises(ConfigError, match="^MY_KEY: character") as refused:
        read_key("MY_KEY")
    assert value not in str(refused.value)


def test_a_key_in_place_of_its_variables_name_is_not_told(judge, environment, tmp_path):
    flags = ["--data", write_pairs(tmp_path / "p.jsonl", 2), "--out", "out", "--judge", "openai:m"]
    done = judge("run", *flags, "--key-env", KEY)
    assert done.returncode == 2 and "--key-env" in done.stderr and KEY not in done.stderr + done.stdout


@pytest.mark.parametrize("place", [0, 280, 290, 299])
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 200])
def test_a_message_that_tells_the_key_is_told_without_it(server, monkeypatch, place, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    words = f"{'w ' * (place // 2)}Incorrect key: '{KEY}', {KEY!r}, {quote(KEY)} and {KEY[:20]}"
    server.manner = lambda body, number: Answer({"error": words}, status)
    error = ask(judge_of(server))
    assert isinstance(error, Exception)
    assert not [at for at in range(len(KEY) - 7) if KEY[at : at + 8] in str(error)]


def test_masking_does_not_decide_what_a_message_says(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "context-length-1")
    server.manner = lambda body, number: refusal(400, "no: context-length-1", code="context_length_exceeded")
    error = ask(judge_of(server))
    assert isinstance(error, CallError) and error.kind == "context" and "context-length-1" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        *("", " ", "localhost:8000", "127.0.0.1:8000/v1", "example.com/v1", "http:/x", "http//x", "://x", "http://"),
        *("ftp://x/v1", "file:///etc", "http://x:80a/v1", "http://x:99999/v1", "http://x:-1", "http://x:0/v1"),
        *("http://[::1", "http://[::1]x/", "http://::1/v1", "http://1.2.3.400/v1", "http://1.2.3/v1", "http://a b/v1"),
        *("http://a..b/v1", f"http://{'a' * 64}/v1", "http://x\n/v1", "http://x/\x00", "http://*/v1", "http://x/ü"),
        *("http://user:secret@x/v1", "http://x/v1?key=secret", "http://x/v1#secret", "http://x/v1/chat/completions"),
    ],
)
@pytest.mark.parametrize("flag", ["--base-url", "OPENAI_BASE_URL"])
def test_an_odd_url_is_one_line_before_the_first_call(monkeypatch, url, flag):
    if flag == "OPENAI_BASE_URL" and not url.strip():
        return
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if flag == "OPENAI_BASE_URL" and "\x00" not in url:
        monkeypatch.setenv(flag, url)
        backend = Backend()
    else:
        flag, backend = "--base-url", Backend(base_url=url)
    with pytest.raises(ConfigError, match=f"^{flag}") as refused:
        make("openai:m", backend)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/v1/",
        "https://host/v1",
        "HTTP://host:8/",
        "http://[::1]:8000/v1",
        "http://my_host.local",
        "http://bücher.example/v1",
    ],
)
def test_a_url_that_can_be_asked(url):
    assert make("openai:m", Backend(base_url=url)).identity == f"openai:m@{url.rstrip('/')}"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ALL_PROXY": "socks5://user:secret@127.0.0.1:1080"}, "ALL_PROXY: a SOCKS proxy"),
        ({"all_proxy": "socks5h://127.0.0.1:1080"}, "all_proxy: a SOCKS proxy"),
        ({"HTTP_PROXY": "foo://secret:1"}, "HTTP_PROXY: "),
        ({"HTTPS_PROXY": "http://secret:80a"}, "HTTPS_PROXY: "),
        ({"https_proxy": "http://[::1"}, "https_proxy: "),
        ({"SSL_CERT_FILE": "/nowhere/secret.pem"}, "SSL_CERT_FILE: the certificates"),
        ({"OPENAI_ORG_ID": "org-secret\n"}, "OPENAI_ORG_ID: "),
        ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE: the certificates"),
    ],
)
def test_an_odd_environment_is_one_line_before_the_first_call(monkeypatch, variables, told):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        make("openai:m", Backend(base_url="https://example.com/v1"))
    assert str(refused.value).startswith(told) and "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_proxy_spares_a_server_from_a_proxy_that_cannot_be_used(server, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "Score" in ask(judge_of(server)).text


def test_openai_base_url_is_honoured_and_said(judge, server, environment, tmp_path):
    environment["OPENAI_BASE_URL"] = f"{server.url}/"
    del environment["OPENAI_API_KEY"]
    flags = ["--judge", "openai:m", "--data", write_pairs(tmp_path / "p.jsonl", 2), "--preset", "single"]
    done = judge("run", *flags, "--out", "out")
    assert done.returncode == 0 and f"{server.url} (from OPENAI_BASE_URL)" in done.stdout and len(server.requests) == 2
    # The flag goes before the variable.
    environment["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"
    done = judge("run", *flags, "--out", "other", "--base-url", server.url, "--no-cache")
    assert done.returncode == 0 and "OPENAI_BASE_URL" not in done.stdout and len(server.requests) == 4


def test_a_dry_run_needs_no_key(judge, environment, tmp_path):
    del environment["OPENAI_API_KEY"]
    flags = ["--judge", "openai:m", "--data", write_pairs(tmp_path / "p.jsonl", 2)]
    assert judge("run", *flags, "--dry-run").returncode == 0
    done = judge("run", *flags, "--out", "out")
    assert done.returncode == 2 and "set OPENAI_API_KEY" in done.stderr
