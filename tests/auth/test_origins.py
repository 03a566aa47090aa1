from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from livechannels.auth.origins import OriginCheck, allowed_hosts, check_origin, is_allowed


class TestRule:
    @pytest.mark.parametrize(
        ("origin", "hosts", "allowed"),
        [
            (None, [], True),
            ("null", ["*"], False),
            ("", ["*"], False),
            ("https://example.com", ["example.com"], True),
            ("https://EXAMPLE.com:8443", ["example.com"], True),
            ("http://example.com", ["https://example.com"], True),
            ("https://example.com", ["EXAMPLE.com:8000"], True),
            ("https://example.com.", ["example.com"], True),
            ("https://evil.example", ["example.com"], False),
            ("https://example.com.evil.example", ["example.com"], False),
            ("https://notexample.com", [".example.com"], False),
            ("https://a.b.example.com", [".example.com"], True),
            ("https://example.com", [".example.com"], True),
            ("https://a.example.com", ["https://*.example.com"], True),
            ("https://a.example.com", ["example.com"], False),
            ("https://any.example", ["*"], True),
            ("https://any.example", [], False),
            ("http://[::1]:8000", ["[::1]"], True),
            ("http://127.0.0.1:8000", ["127.0.0.1"], True),
            ("http://example.com:port", ["*"], False),
            ("http://[::1", ["*"], False),
            ("example.com", ["example.com"], False),
            ("file://", ["*"], False),
            ("https://example.com@evil.example", ["example.com"], False),
        ],
    )
    def test_is_allowed(self, origin: str | None, hosts: list[str], allowed: bool) -> None:
        assert is_allowed(origin, hosts) is allowed

    def test_hosts_come_from_the_settings(self) -> None:
        with override_settings(ALLOWED_HOSTS=["a.example"], CSRF_TRUSTED_ORIGINS=["https://b.example"], DEBUG=False):
            assert allowed_hosts() == ["a.example", "https://b.example"]
            with override_settings(LIVECHANNELS={"ALLOWED_ORIGINS": ["c.example"]}):
                assert allowed_hosts() == ["c.example"]
            with override_settings(LIVECHANNELS={"ALLOWED_ORIGINS": []}):
                assert allowed_hosts() == []
        with override_settings(ALLOWED_HOSTS=[], DEBUG=True):
            assert is_allowed("http://localhost:8000", allowed_hosts())
            assert is_allowed("http://127.0.0.1", allowed_hosts())
            assert not is_allowed("http://evil.example", allowed_hosts())


class TestASGI:
    async def answer(self, *origins: bytes) -> list[str]:
        sent: list[str] = []

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            sent.append("inner")

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message["type"])

        headers = [(b"origin", origin) for origin in origins]
        await OriginCheck(inner)({"type": "websocket", "headers": headers}, receive, send)
        return sent

    async def test_before_the_handshake(self) -> None:
        assert await self.answer() == ["inner"]
        assert await self.answer(b"http://testserver") == ["inner"]
        assert await self.answer(b"http://evil.example") == ["websocket.close"]
        assert await self.answer(b"null") == ["websocket.close"]
        assert await self.answer(b"http://testserver", b"http://evil.example") == ["websocket.close"]


class TestViews:
    def test_sync(self) -> None:
        view = check_origin(lambda request: HttpResponse("ok"))
        assert view(RequestFactory().get("/")).status_code == 200
        refused = view(RequestFactory().get("/", headers={"Origin": "http://evil.example"}))
        assert (refused.status_code, refused.content) == (403, b"this origin is not allowed\n")

    async def test_async(self) -> None:
        @check_origin
        async def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse("ok")

        assert (await view(RequestFactory().get("/"))).status_code == 200
        assert (await view(RequestFactory().get("/", headers={"Origin": "null"}))).status_code == 403
