"""`make bench`: all tables, or those that are named: python -m benchmarks [--quick] [layer] [browser] [script]."""

from __future__ import annotations

import subprocess
import sys

TABLES = ("layer", "script", "browser")


def main() -> None:
    words = sys.argv[1:]
    wanted = [table for table in TABLES if table in words] or TABLES
    more = [word for word in words if word not in TABLES]
    for table in wanted:
        print(f"\n## {table}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{table}", *more], check=True)


if __name__ == "__main__":
    main()
