"""The pages, and the few things they ask of the server: renaming, announcing, being somebody else."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from livechannels import publish
from livechannels.exceptions import EngineUnavailable

from .consumers import CHANNEL
from .models import Dashboard
from .seed import PEOPLE, PUSHED

ANNOUNCEMENT_LENGTH = 200
WINDOWS = (("30s", 30), ("1m", 60), ("5m", 300), ("15m", 900))

# What dashboard.js imports: named in the page, so that the browser need not find out file by file.
MODULES = [
    f"dashboards/{name}.js"
    for name in ("chart", "connection", "format", "leaders", "page", "panel", "people", "samples", "title")
]


@require_GET
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    """The first dashboard: what the Ready line points at."""
    return render_dashboard(request, get_object_or_404(Dashboard.objects.all()[:1]))


class DashboardView(View):
    """GET shows it (as JSON if asked for); POST or PATCH {"title", "version"} renames it."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        dashboard = get_object_or_404(Dashboard, pk=pk)
        if request.accepts("text/html"):
            return render_dashboard(request, dashboard)
        return JsonResponse(as_json(dashboard))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not request.user.has_perm("dashboards.change_dashboard"):
            return refusal(403, "Sign in as someone who may change dashboards.")
        try:
            wanted = json.loads(request.body)
            title, version = str(wanted["title"]).strip(), int(wanted["version"])
        except (ValueError, TypeError, KeyError):
            return refusal(400, 'Send JSON: {"title": "…", "version": 1}.')
        with transaction.atomic():
            dashboard = get_object_or_404(Dashboard, pk=pk)
            if dashboard.version != version:
                return JsonResponse(as_json(dashboard), status=409)
            dashboard.title = title
            try:
                dashboard.full_clean()
            except ValidationError as error:
                return refusal(400, " ".join(error.messages))
            dashboard.save()
        return JsonResponse(as_json(dashboard))

    patch = post


@require_GET
def plain(request: HttpRequest) -> HttpResponse:
    """The page of the plain consumer."""
    return render(request, "dashboards/plain.html", {"page": page(request) | {"channel": CHANNEL}})


@require_POST
def change_user(request: HttpRequest) -> HttpResponse:
    """Become one of the demo's people, or a guest. No password: this is a demo on your own machine."""
    name = request.POST.get("user", "")
    if name in PEOPLE:
        login(request, get_object_or_404(User, username=name))
    else:
        logout(request)
    back = request.POST.get("next", "")
    return redirect(back if url_has_allowed_host_and_scheme(back, {request.get_host()}) else "index")


@require_POST
def announce(request: HttpRequest) -> HttpResponse:
    """Say something to everyone on every node: {"message"}. For staff."""
    if not request.user.is_staff:
        return refusal(403, "Only staff may announce.")
    try:
        message = str(json.loads(request.body)["message"]).strip()
    except (ValueError, TypeError, KeyError):
        return refusal(400, 'Send JSON: {"message": "…"}.')
    if len(message) > ANNOUNCEMENT_LENGTH:
        return refusal(400, f"At most {ANNOUNCEMENT_LENGTH} characters.")
    try:
        publish("announcements", {"message": message, "user": request.user.get_username()})
    except EngineUnavailable:
        return refusal(503, "The other nodes cannot be reached at the moment.")
    return HttpResponse(status=204)


@require_GET
def favicon(request: HttpRequest) -> HttpResponse:
    return redirect(static("dashboards/icon.svg"), permanent=True)


def render_dashboard(request: HttpRequest, dashboard: Dashboard) -> HttpResponse:
    details = as_json(dashboard)
    return render(
        request,
        "dashboards/dashboard.html",
        {
            "dashboard": dashboard,
            "panels": dashboard.panels.all(),
            "windows": WINDOWS,
            "modules": MODULES,
            "page": page(request) | {"dashboard": details},
        },
    )


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "pk": dashboard.pk,
        "title": dashboard.title,
        "version": dashboard.version,
        "url": dashboard.get_absolute_url(),
        "panels": list(dashboard.panels.values("pk", "title", "channel", "unit", "interval")),
    }


def page(request: HttpRequest) -> dict[str, Any]:
    """What both pages know of the node that serves them; `now` in milliseconds."""
    user = request.user
    host = request.get_host().rsplit(":", 1)[0]
    base = f"{request.scheme}://{request.get_host()}"
    nodes = [
        {"name": f"node-{number}", "url": f"{request.scheme}://{host}:{port}/"}
        for number, port in enumerate(settings.NODE_PORTS)
    ]
    return {
        "now": int(time.time() * 1000),
        "node": settings.NODE,
        "pid": os.getpid(),
        "engine": settings.ENGINE,
        "nodes": nodes,
        "others": [node for node in nodes if node["name"] != settings.NODE],
        "people": PEOPLE,
        "user": user.get_username(),
        "mayChange": user.has_perm("dashboards.change_dashboard"),
        "mayAnnounce": user.is_staff,
        "pushed": PUSHED,
        "push": {"url": f"{base}/live/push/{PUSHED.split('/')[1]}", "token": settings.PUSH_TOKEN},
    }


def refusal(status: int, error: str) -> JsonResponse:
    return JsonResponse({"error": error}, status=status)
