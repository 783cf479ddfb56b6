"""The views load nothing that they may not need."""

import json
import subprocess
import sys

LOGGERS = ("lightning", "wandb", "wandb_workspaces", "tensorboard", "mlflow", "altair", "PIL")


def test_importing_the_views_loads_no_logger():
    code = (
        "import json, sys, lightning_attnbal.tracking.views;"
        f"print(json.dumps([m for m in {LOGGERS} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
