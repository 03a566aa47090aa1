from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, override_settings

from livechannels import apublish, metrics
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer
from tests.sdk.servers import Server, environment
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def layer() -> Iterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        yield layer


@pytest.fixture
async def serving(layer: LiveChannelLayer) -> AsyncIterator[LiveChannelLayer]:
    layer.node()
    yield layer
    await layer.close()


@pytest.fixture
async def staff() -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(await User.objects.acreate(username="root", is_staff=True))
    return client


async def test_health_is_for_everyone(serving: LiveChannelLayer, async_client: AsyncClient) -> None:
    response = await async_client.get("/live/health")
    said = response.json()
    assert response.status_code == 200
    assert (said["status"], said["node"], said["engine"]) == ("ok", serving.node().id, "memory")
    assert said["since"] > 0
    assert "no-cache" in response["Cache-Control"]


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_the_first_health_answer_of_a_server_names_its_node(tmp_path: Path, kind: str) -> None:
    """Daphne has no lifespan: the request itself starts the node."""
    server = Server(tmp_path, environment(tmp_path / "no.sqlite3", {"ha_engine": "memory"}), kind)
    server.process.spawn()
    try:
        first = wait_until(lambda: server.get("/live/health"), f"an answer of {kind}", 30)
        assert f"-{server.process.pid}-" in first["node"]
        assert server.get("/live/health")["node"] == first["node"]
    finally:
        server.kill()


@pytest.mark.usefixtures("layer")
def test_health_under_wsgi(client: Any) -> None:
    assert client.get("/live/health").json()["status"] == "ok"


@pytest.mark.usefixtures("layer")
async def test_status_is_for_staff(async_client: AsyncClient) -> None:
    response = await async_client.get("/live/status")
    assert (response.status_code, response.content) == (403, b"status is for staff: sign in first\n")
    await async_client.aforce_login(await User.objects.acreate(username="ann"))
    assert (await async_client.get("/live/status")).status_code == 403


async def test_status_shows_nodes_and_streams(serving: LiveChannelLayer, staff: AsyncClient) -> None:
    node = serving.node()
    while not (found := (await staff.get("/live/status")).json())["nodes"]:
        pass
    assert [one["node"] for one in found["nodes"]] == [node.id]
    assert found["nodes"][0]["pid"] > 0
    assert found["health"]["status"] == "ok"
    assert found["engine"]["engine"] == "memory" if "engine" in found["engine"] else found["engine"]
    assert found["streams"] == []
    assert isinstance(found["counts"], dict)


@pytest.mark.usefixtures("serving")
async def test_status_is_a_page_for_browsers(staff: AsyncClient) -> None:
    response = await staff.get("/live/status", headers=HTML)
    text = response.content.decode()
    assert response["Content-Type"].startswith("text/html")
    assert "<h1>Live channels:" in text
    assert "Backend streams" in text


async def test_status_while_the_store_is_away(
    layer: LiveChannelLayer, staff: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(command: Any) -> Any:
        raise EngineUnavailable("Redis is away")

    monkeypatch.setattr(layer, "run", away)
    response = await staff.get("/live/status")
    assert (response.status_code, response.content) == (503, b"Redis is away\n")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("", 403), ("Bearer wrong", 403), ("Bearer ", 403), ("Basic key-1", 403), ("Bearer key-1", 200)],
)
async def test_metrics_by_api_key(authorization: str, status: int, async_client: AsyncClient) -> None:
    with override_settings(LIVECHANNELS={"API_KEYS": ["key-0", "key-1"]}):
        response = await async_client.get("/live/metrics", headers={"Authorization": authorization})
    assert response.status_code == status
    if status == 403:
        assert response.content.count(b"\n") == 1


async def test_metrics_for_staff(staff: AsyncClient) -> None:
    metrics.counter("test_views_total", "For this test.").inc()
    response = await staff.get("/live/metrics")
    assert response.status_code == 200
    assert b"\ntest_views_total 1.0\n" in response.content
    assert response["Content-Type"].startswith("text/plain")


async def test_metrics_without_prometheus_client(staff: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    response = await staff.get("/live/metrics")
    assert response.status_code == 501
    assert b"livechannels[metrics]" in response.content


async def test_only_reading(async_client: AsyncClient) -> None:
    for page in ("health", "metrics", "status"):
        assert (await async_client.post(f"/live/{page}")).status_code == 405


async def test_plain_http_to_the_websocket(async_client: AsyncClient) -> None:
    response = await async_client.get("/live/ws")
    assert (response.status_code, response["Upgrade"]) == (426, "websocket")


async def test_the_page_counts_viewers(
    serving: LiveChannelLayer, staff: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.node().hub, "counts", lambda: {"open/watched": 3})
    text = (await staff.get("/live/status", headers=HTML)).content.decode()
    assert '<th scope="col">viewers</th>' in text
    assert "<td>open/watched</td><td>3</td>" in text


@pytest.mark.usefixtures("serving")
async def test_pushed_channels_are_listed(staff: AsyncClient, async_client: AsyncClient) -> None:
    response = await async_client.post(
        "/live/push/t",
        data="cpu,host=a usage=1.5\n",
        content_type="text/plain",
        headers={"Authorization": "Bearer test-push-token-of-32-characters"},
    )
    assert (response.status_code, response.content) == (204, b"")
    found = (await staff.get("/live/status")).json()
    assert [channel["channel"] for channel in found["channels"]] == ["stream/t/cpu"]
    assert json.dumps(found)
    assert await apublish("open/a", 1) is not None
