"""Where the files of a run's plan lie in the workspace."""


def plan_folder(run: str) -> str:
    """Prefix of all files of a run's plan, with its last slash."""
    return f"runs/{run}/plan/"


def shard_key(run: str, shard_id: str) -> str:
    """Key of a shard's table (schema PLAN)."""
    return f"{plan_folder(run)}{shard_id}.parquet"


def generation_key(run: str, number: int) -> str:
    """Key of a generation's record, written last."""
    return f"{plan_folder(run)}{number:06d}.json"


def removed_key(run: str, number: int, removed_id: str) -> str:
    """Key of the table of images that left the source with a generation (schema REMOVED)."""
    return f"{plan_folder(run)}{number:06d}-{removed_id}-removed.parquet"
