"""Property tests with other examples than every day's: seeded, so that a failure can be had again.

python -m benchmarks.properties --seeds 5 --first 100
"""

from __future__ import annotations

import argparse
import subprocess
import sys


def main() -> int:
    """Run the property tests once a seed; return how many seeds failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    asked = parser.parse_args()
    failed = []
    for seed in range(asked.first, asked.first + asked.seeds):
        command = [sys.executable, "-m", "pytest", "-q", "-m", "property", f"--hypothesis-seed={seed}"]
        print(f"seed {seed}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(seed)
    print(f"{asked.seeds} seeds, {len(failed)} failed{': ' + ', '.join(map(str, failed)) if failed else ''}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
