"""The whole job of a campaign, with the flow and without it."""

import os
import time
from pathlib import Path

from schemas.records import RunSummary


def run_bare(campaign: Path) -> RunSummary:
    """Plan, work off every shard, export and sum up in a plain loop."""
    from schemas.campaign_file import load_campaign
    from tasks.run import CampaignRun, Worked
    from tasks.shard.shard import process_shard

    started = time.perf_counter()
    with CampaignRun(load_campaign(campaign)) as run:
        run.plan()
        worked, began = Worked(), time.perf_counter()
        for shard in run.pending():
            worked.images += process_shard(shard.id, run.settings).counts.images
            worked.shards += 1
        worked.seconds = time.perf_counter() - began
        return run.summary(worked, run.export(), time.perf_counter() - started)


def run_flow(campaign: Path, prefect_home: Path) -> RunSummary:
    """Run the campaign as `vouch run` does, with an embedded server whose database lies in a folder of its own."""
    from flows.prefect_server import prepare_environment

    prepare_environment()
    os.environ["PREFECT_HOME"] = str(prefect_home)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
    from flows.run import run_campaign

    return run_campaign(campaign)
