"""Makes the file DATABASE with one user who is signed in, and prints their cookie."""

from __future__ import annotations

import os
import subprocess
import sys

from .samples import ROOT


def make(database: str) -> str:
    """In a process of its own, because Django is configured only once."""
    env = {**os.environ, "DATABASE": database, "BENCH": "floor redis://unused"}
    command = [sys.executable, "-m", "benchmarks.signed_in"]
    return subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    from . import site  # noqa: F401 - configures Django

    call_command("migrate", verbosity=0, run_syncdb=True)
    user = get_user_model().objects.create_user("ann", password="secret")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    print(f"sessionid={session.session_key}")


if __name__ == "__main__":
    main()
