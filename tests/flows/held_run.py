"""`vouch`, whose last of SHARDS shards waits for a file: whatever the machine's speed, a run can be met at its work.

Its words are the file, and those of the command line.
"""

import sys
import time
from pathlib import Path

from vouch_labels.flows.cli import main
from vouch_labels.tasks.shard import shard

SHARDS = 20
_process_shard = shard.process_shard
_begun = []


def _wait_with_the_last(name, *rest):
    _begun.append(name)
    while len(_begun) == SHARDS and not Path(_file).exists():
        time.sleep(0.05)
    return _process_shard(name, *rest)


if __name__ == "__main__":
    _file = sys.argv.pop(1)
    # Before the flow is imported, which the command line does when it has set up its log.
    shard.process_shard = _wait_with_the_last
    main()
