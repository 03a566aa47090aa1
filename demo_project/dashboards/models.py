"""A dashboard and its panels. Saving one tells everyone who looks at it: see demo/live.py."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse

from livechannels import registry
from livechannels.exceptions import LiveChannelsError


class Dashboard(models.Model):
    """What one page shows. `version` counts its changes, so that nobody overwrites a change they have not seen."""

    title = models.CharField(max_length=80)
    version = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            self.version += 1
        super().save(*args, **kwargs)

    def get_absolute_url(self) -> str:
        return reverse("dashboard", args=[self.pk])


class Panel(models.Model):
    """One chart of a dashboard: a live channel of frames and how to read its numbers."""

    class Unit(models.TextChoices):
        PERCENT = "percent", "percent"
        BYTES = "bytes", "bytes"
        BYTES_PER_SECOND = "bytes/s", "bytes per second"
        NUMBER = "number", "plain number"

    dashboard = models.ForeignKey(Dashboard, models.CASCADE, related_name="panels")
    title = models.CharField(max_length=80)
    channel = models.CharField(max_length=255, help_text="A live channel of frames, such as stream/telegraf/cpu.")
    unit = models.CharField(max_length=16, choices=Unit.choices, default=Unit.NUMBER)
    interval = models.FloatField(
        default=0,
        validators=[MinValueValidator(0)],
        help_text="Seconds between frames; a longer silence is drawn as a gap. 0: they come when they come.",
    )
    wide = models.BooleanField(default=False, help_text="Takes the whole width of the page.")
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["position", "pk"]

    def __str__(self) -> str:
        return self.title

    def clean(self) -> None:
        try:
            registry.resolve(self.channel)
        except LiveChannelsError as error:
            raise ValidationError({"channel": str(error)}) from error
