"""Pages about this node and its cluster. Thin: what they show is gathered in `status` and `metrics`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import metrics
from . import status as cluster
from .auth.tokens import carries_token
from .conf import settings
from .exceptions import EngineUnavailable
from .layer import live_layer


@never_cache
@require_safe
async def health(request: HttpRequest) -> JsonResponse:
    """Always 200 while the process serves: {"status": "ok"|"degraded", "since", "node", …}. Does no I/O."""
    return JsonResponse(live_layer().health())


@never_cache
@require_safe
async def metrics_view(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics of this process, for staff or `Authorization: Bearer <one of API_KEYS>`."""
    if not (_has_api_key(request) or await _is_staff(request)):
        return _plain("metrics are for staff, or with an API key: Authorization: Bearer <key>", 403)
    try:
        text, content_type = metrics.render()
    except ImportError:
        return _plain('metrics need prometheus-client: pip install "livechannels[metrics]"', 501)
    return HttpResponse(text, content_type=content_type)


@never_cache
@require_safe
async def status(request: HttpRequest) -> HttpResponseBase:
    """The cluster as a page, or as JSON for who does not ask for HTML. For staff."""
    if not await _is_staff(request):
        return _plain("status is for staff: sign in first", 403)
    try:
        found = await cluster.gather()
    except EngineUnavailable as error:
        return _plain(str(error), 503)
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        since = datetime.fromtimestamp(found["health"]["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        context = {"health": found["health"] | {"since": since}, "tables": _tables(found)}
        return render(request, "livechannels/status.html", context)
    return JsonResponse(found)


@require_safe
async def upgrade_required(request: HttpRequest) -> HttpResponse:
    """What a plain HTTP request to the WebSocket's path is told."""
    response = _plain("this is a WebSocket; is the server an ASGI server with livechannels.routing?", 426)
    response["Upgrade"] = "websocket"
    return response


def _tables(found: cluster.Status) -> list[dict[str, Any]]:
    titles = {"nodes": "Nodes", "streams": "Backend streams", "channels": "Active channels"}
    tables = [
        {"title": title, "columns": list(rows[0]) if rows else [], "rows": [list(row.values()) for row in rows]}
        for title, rows in ((title, found[name]) for name, title in titles.items())
    ]
    for name, title in (("engine", "Engine"), ("counts", "Counts of this process")):
        tables.append({"title": title, "columns": ["name", "value"], "rows": list(found[name].items())})
    return tables


async def _is_staff(request: HttpRequest) -> bool:
    if not hasattr(request, "auser"):
        return False
    user = await request.auser()
    return bool(user.is_active and user.is_staff)


def _has_api_key(request: HttpRequest) -> bool:
    return carries_token(request.headers.get("Authorization", ""), settings.API_KEYS or ())


def _plain(text: str, code: int) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=code, content_type="text/plain; charset=utf-8")
