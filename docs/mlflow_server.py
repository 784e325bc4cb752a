"""Open MLflow's page over the runs of a store on a free port: `make mlflow`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run the server until Ctrl-C."""
    store = Path(os.environ.get("STORE", "bench")).resolve()
    if not (store / "mlflow.db").is_file():
        sys.exit(f"{store} has no mlflow.db yet: run a sweep first, or set STORE=DIR")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"MLflow will answer at http://127.0.0.1:{port} in a minute; Ctrl-C ends it", flush=True)
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "mlflow-artifacts")]
    try:
        subprocess.run(command, env={**os.environ, **quiet}, check=True)
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
