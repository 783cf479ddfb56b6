"""The quickstart's comparison over several seeds: `python -m recipes.benchmarks.quickstart`.

Each seed draws its own head, dropout and order of batches; both arms of a seed share them. Finished
seeds are kept: an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from recipes.benchmarks._common import RESULTS, write_record


def main() -> None:
    """Run the quickstart once per seed and collect its results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, default=RESULTS / "quickstart.json")
    parser.add_argument("overrides", nargs="*", help="key=value for recipes.quickstart")
    options = parser.parse_args()
    done = json.loads(options.out.read_text())["seeds"] if options.out.exists() else {}
    for seed in range(options.seeds):
        if str(seed) in done:
            continue
        folder = Path("runs") / f"quickstart-seed{seed}"
        command = [sys.executable, "-m", "recipes.quickstart", f"seed={seed}", f"out_dir={folder}"]
        subprocess.run([*command, *options.overrides], check=True)
        done[str(seed)] = json.loads((folder / "results.json").read_text())
        write_record(options.out, {"overrides": options.overrides, "seeds": done})


if __name__ == "__main__":
    main()
