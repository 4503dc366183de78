"""Reads the queue of a campaign from outside of a review: its progress and its answers.

All raise a UserError where there is no queue or its database is away, a StoreError for a workspace that fails.
"""

from contextlib import ExitStack, suppress
from pathlib import Path

from vouch_labels.review_ui.queue.answers import export_queue, pull_queue
from vouch_labels.review_ui.queue.database import QueueStore, connected, read_queue
from vouch_labels.review_ui.queue.fill import queue_id
from vouch_labels.review_ui.queue.status import queue_status as count_status
from vouch_labels.review_ui.server.mongod import check_started, locked, queue_folder, review_database
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.queue import PullOutcome, QueueStatus
from vouch_labels.tasks.reviews.read_file import check_suffix
from vouch_labels.tasks.store.open import open_workspace


def queue_status(campaign: Campaign) -> QueueStatus:
    """Count the progress of a campaign's queue, by purpose."""
    check_started(campaign)
    with review_database(campaign) as use, connected(use.uri) as database:
        return count_status(QueueStore.read(database, queue_id(campaign)))


def pull_answers(campaign: Campaign) -> PullOutcome:
    """Bring the answers that the workspace does not have yet into it."""
    check_started(campaign)
    with review_database(campaign) as use:
        return pull_once(use.uri, campaign)


def pull_once(uri: str, campaign: Campaign) -> PullOutcome:
    """Bring them in from the database that runs at an address, one process of this machine at a time.

    Two at once would both write what neither finds in the workspace yet. It would still count once, and so may it be
    where no file can be locked, or on two machines.
    """
    queue = queue_id(campaign)
    with ExitStack() as stack:
        with suppress(UserError):
            stack.enter_context(locked(queue_folder(queue) / "pull.lock"))
        return pull_queue(uri, queue, open_workspace(campaign.workspace))


def export_answers(campaign: Campaign, path: Path) -> int:
    """Write all answers of the queue to a file; returns how many verdicts they are."""
    check_suffix(path)
    check_started(campaign)
    with review_database(campaign) as use:
        return export_queue(use.uri, queue_id(campaign), path)


def is_filled(uri: str, queue: str) -> bool:
    """Whether there is a queue already."""
    with connected(uri) as database:
        return read_queue(database, queue) is not None
