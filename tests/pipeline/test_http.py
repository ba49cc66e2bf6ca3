"""What a server may do instead of answering: each its own sentence, and never a secret in it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mismatch.engines import http
from mismatch.engines.http import Server, ServerError, need

KEY = "sk-very-secret"
Handler = BaseHTTPRequestHandler


def _answer(handler: Handler, code: int, body: bytes, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _error(code: int, text: str) -> Callable[[Handler], None]:
    body = json.dumps({"error": {"message": text}}).encode()
    return lambda handler: _answer(handler, code, body)


def _echo(handler: Handler) -> None:
    sent = handler.rfile.read(int(handler.headers["Content-Length"]))
    _answer(handler, 200, sent)


BEHAVIOURS: dict[str, Callable[[Handler], None]] = {
    "/echo": _echo,
    "/auth": lambda h: _answer(h, 200, json.dumps(h.headers["Authorization"]).encode()),
    "/busy": _error(429, "slow down"),
    "/broken": _error(500, "engine died."),
    "/bad": _error(400, f"no such thing, {KEY}"),
    "/locked": _error(401, "who are you"),
    "/off": _error(403, f"start it with --enable-this, {KEY}"),
    "/moved": lambda h: _answer(h, 302, b"", Location=f"http://other.test/x?token={KEY}"),
    "/page": lambda h: _answer(h, 200, b"<html>hello</html>"),
    "/cut": lambda h: _answer(h, 200, b'{"choices": [', **{"Content-Length": "500"}),
}


class _Scripted(BaseHTTPRequestHandler):
    def _act(self) -> None:
        BEHAVIOURS.get(self.path, _error(404, "not found"))(self)

    do_GET = do_POST = _act

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a thread that misbehaves by path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/busy", "429"),
        ("/broken", "see the server's log; it says: engine died"),
        ("/bad", "refused the request (400); it says: no such thing"),
        ("/locked", "wants a key (401): put it into the variable THE_KEY"),
        ("/off", "forbids the request (403); it says: start it with --enable-this"),
        ("/moved", "sends requests on to other.test, which is not followed"),
        ("/page", "no whole JSON"),
        ("/cut", "broke off in the middle"),
        ("/nothing", "another kind of server"),
    ],
)
def test_each_failure_has_its_own_sentence(url: str, path: str, words: str) -> None:
    """The sentence names the address and what happened there."""
    with pytest.raises(ServerError) as failure:
        Server(url, "THE_KEY").get(path)
    assert words in str(failure.value)
    assert f"{url}{path}" in str(failure.value)


def test_the_address_of_an_api_is_not_the_root(url: str) -> None:
    """What is given to other clients ends in /v1, and every question would miss."""
    with pytest.raises(ServerError, match="url is the server's root, without /v1"):
        Server(f"{url}/v1", "THE_KEY").get("/version")


def test_nobody_there(url: str) -> None:
    """An address where nothing listens says to start a server or mend the url."""
    with pytest.raises(ServerError, match=r"no server answers at http://127\.0\.0\.1:1 "):
        Server("http://127.0.0.1:1", "THE_KEY").get("/version")


def test_a_port_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server should tell of itself has a limit of its own, far below a call's."""
    assert http.TELL_TIMEOUT_S <= 60
    monkeypatch.setattr(http, "TELL_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its queue
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"{url}/version said nothing for 0.2 s"):
            Server(url, "THE_KEY").get("/version")


def test_the_key_is_sent_and_never_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the named variable goes out as a bearer token; a server that repeats it, or an
    address that holds it, does not bring it into a message."""
    monkeypatch.setenv("THE_KEY", KEY)
    server = Server(url, "THE_KEY")
    assert server.get("/auth") == f"Bearer {KEY}"
    for path in ("/bad", "/locked", "/off", "/moved"):
        with pytest.raises(ServerError) as failure:
            server.get(path)
        assert KEY not in str(failure.value)
    with pytest.raises(ServerError, match=r"refuses the key in \$THE_KEY"):
        server.get("/locked")


def test_a_proxy_of_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one address spoken to is the one that was given."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Server(url, "THE_KEY").post("/echo", {"a": 1}) == {"a": 1}


def test_answers_come_in_the_order_of_their_bodies(url: str) -> None:
    """However many are under way at once."""
    ticks: list[tuple[int, int]] = []
    bodies = [{"n": n} for n in range(20)]
    server = Server(url, "THE_KEY")
    assert server.post_all("/echo", bodies, 4, lambda *n: ticks.append(n)) == bodies
    assert ticks[-1] == (20, 20)
    assert server.post_all("/echo", [], 4, lambda *n: None) == []


def test_the_first_failure_of_many_is_raised(url: str) -> None:
    """One refused request fails the call, with its reason."""
    with pytest.raises(ServerError, match="engine died"):
        Server(url, "THE_KEY").post_all("/broken", [{}] * 5, 2, lambda *n: None)


def test_what_is_optional_may_be_missing_or_broken(url: str) -> None:
    """An endpoint that only some servers have is no error where it is not there, or not well."""
    server = Server(url, "THE_KEY")
    assert server.get_if_there("/nothing") is None
    assert server.get_if_there("/broken") is None
    assert server.text_if_there("/nothing") == ""


def test_a_missing_field_is_named() -> None:
    """The whole way to it, so that a reader can look it up."""
    assert need({"a": [{"b": 0}]}, "a", 0, "b") == 0
    with pytest.raises(ServerError, match=r"has no choices\.0\.token_ids"):
        need({"choices": [{"text": ""}]}, "choices", 0, "token_ids")
