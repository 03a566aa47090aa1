"""What is installed is complete. Under tox this looks into the wheel; in a checkout it can only agree with itself."""

from __future__ import annotations

from pathlib import Path

import livechannels

CHECKOUT = Path(__file__).parent.parent / "livechannels"


def files(package: Path) -> set[str]:
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(package)) for path in found}


def test_every_file_of_the_package_is_installed():
    installed = files(Path(livechannels.__file__).parent)
    assert files(CHECKOUT) <= installed
    assert "py.typed" in installed
