"""Order and orchestration: the flow, the command line."""

from contextlib import suppress

from vouch_labels.flows.prefect_server import prepare_environment
from vouch_labels.flows.user_folders import settle_folders
from vouch_labels.schemas.errors import UserError

# Here, because prefect reads its settings when it is imported, and a flow may be imported by anybody.
prepare_environment()
with suppress(UserError):  # the command line tells it
    settle_folders()
