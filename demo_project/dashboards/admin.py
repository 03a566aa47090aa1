from __future__ import annotations

from django.contrib import admin

from .models import Dashboard, Panel


class PanelInline(admin.TabularInline):
    model = Panel
    extra = 0


@admin.register(Dashboard)
class DashboardAdmin(admin.ModelAdmin):
    list_display = ["title", "version"]
    inlines = [PanelInline]
