"""Where the results of shards lie in the workspace."""


def part_key(run: str, shard: str, stage: str, sha256: str) -> str:
    """Key of a table, named by its content: writing it again changes nothing."""
    return f"runs/{run}/parts/{shard}/{stage}-{sha256[:16]}.parquet"


def done_folder(run: str) -> str:
    """Prefix of all markers of a run, with its last slash."""
    return f"runs/{run}/done/"


def marker_key(run: str, shard: str, fingerprint: str) -> str:
    """Key of the marker that a shard is done under some settings."""
    return f"{done_folder(run)}{shard}/{fingerprint}.json"


def current_key(run: str) -> str:
    """Key of the record that names the settings last used."""
    return f"runs/{run}/current.json"
