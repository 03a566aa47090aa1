"""What a test asks of a server under test: to call the public functions, and to sign users in and out."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

import livechannels
from livechannels.conf import settings
from livechannels.layer import live_layer
from tests.sdk.live import received


@csrf_exempt
async def call(request: HttpRequest, name: str) -> JsonResponse:
    """Call livechannels.<name> with the JSON body as keywords."""
    result = await getattr(livechannels, name)(**json.loads(request.body))
    return JsonResponse({"result": result}, json_dumps_params={"default": repr})


@csrf_exempt
async def broadcast(request: HttpRequest, kind: str) -> JsonResponse:
    await live_layer(settings.LAYER).broadcast(kind, json.loads(request.body))
    return JsonResponse({})


def sign_in(request: HttpRequest, name: str) -> JsonResponse:
    user: Any = get_user_model().objects.get(username=name)
    login(request, user)
    request.session.set_expiry(int(request.GET.get("seconds", 600)))
    request.session.save()
    return JsonResponse({"id": user.pk, "session": request.session.session_key})


def sign_out(request: HttpRequest) -> JsonResponse:
    logout(request)
    return JsonResponse({})


def change(request: HttpRequest, name: str) -> JsonResponse:
    """Set fields of a user: ?is_staff=0, ?is_active=0, ?password=new."""
    user = get_user_model().objects.get(username=name)
    for field, value in request.GET.items():
        if field == "password":
            user.set_password(value)
        else:
            setattr(user, field, value == "1")
    user.save()
    return JsonResponse({})


def facts(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"received": received})


urlpatterns = [
    path("live/", include("livechannels.urls")),
    path("call/<str:name>", call),
    path("broadcast/<str:kind>", broadcast),
    path("sign-in/<str:name>", sign_in),
    path("sign-out", sign_out),
    path("change/<str:name>", change),
    path("facts", facts),
]
