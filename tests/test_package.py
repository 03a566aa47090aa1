from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_needs_no_settings_and_no_django() -> None:
    code = "import sys, livechannels; assert livechannels.__version__; assert 'django' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
