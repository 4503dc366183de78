"""Errors that reach the user as one line: what is wrong, and what to do about it."""


class VouchError(Exception):
    """An operation failed for a reason outside the user's input (exit code 1)."""

    exit_code = 1


class UserError(VouchError):
    """The user's input or set-up is at fault, and the message says how to fix it (exit code 2)."""

    exit_code = 2


class CampaignError(UserError):
    """The campaign file cannot be read or does not fit its schema."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe, of another architecture, or not the pinned file."""


class StoreError(VouchError):
    """Object storage did not do what was asked, after all retries."""


class ObjectMissingError(StoreError):
    """No object has this key (deleted between list and get, perhaps)."""


class ObjectChangedError(StoreError):
    """The object is not the version any more that was asked for."""


class ContainerError(StoreError):
    """A tar, Parquet or video file, or what it holds under one name, is damaged or of a kind that is not read."""


class ObjectArchivedError(StoreError):
    """The object lies in an archive and cannot be read before somebody restores it."""


class StoreAccessError(UserError):
    """The bucket or folder is missing, refuses access, or its endpoint does not answer."""


class ObjectRefusedError(StoreAccessError):
    """The bucket answers, but denies access to this object."""


class WorkspaceBusyError(UserError):
    """Another run holds this workspace."""


class NotCertifiedError(VouchError):
    """Reviewed samples were tested, and nothing could be certified (exit code 3)."""

    exit_code = 3


class LeaseLostError(VouchError):
    """An answer came when its item was another's, not asked any more, or answered otherwise; it is kept in the log."""
