"""Settings of other packages that must stand before they are imported."""

import os
from typing import Final

DEFAULTS: Final = {
    # No package reports home.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FIFTYONE_DO_NOT_TRACK": "true",
    # The first embedded start migrates its database, which takes longer than Prefect's 20 seconds, and many times as
    # long on a busy machine. A server that ends instead of starting is seen at once, see embedded_server.py.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1800",
    # The tokenizers' own threads deadlock after a fork, and complain.
    "TOKENIZERS_PARALLELISM": "false",
    # torch's idle threads (GNU OpenMP) spin for some milliseconds, each on a core. A fifteenth of that is as fast on an
    # idle machine, and 3.5 times as fast where another process wants the cores (measured: the demo, two cores).
    "GOMP_SPINCOUNT": "20000",
}


def prepare_environment() -> None:
    """Set what the user has not set; call it before prefect, transformers or fiftyone are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
