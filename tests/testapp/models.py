from __future__ import annotations

from django.db import models


class Board(models.Model):
    """Has a version that its writers count up."""

    title = models.CharField(max_length=100)
    version = models.PositiveIntegerField(default=1)

    def __str__(self) -> str:
        return self.title


class BoardProxy(Board):
    class Meta:
        proxy = True


class PinnedBoard(Board):
    """A child by multi-table inheritance."""

    colour = models.CharField(max_length=10, default="red")


class Team(models.Model):
    slug = models.SlugField(unique=True)

    def __str__(self) -> str:
        return self.slug


class Note(models.Model):
    """Has no version, and a channel with two parameters."""

    team = models.ForeignKey(Team, models.CASCADE)
    key = models.SlugField()
    text = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.key


class Report(models.Model):
    """Its version is a datetime."""

    changed = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return str(self.pk)
