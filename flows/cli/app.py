"""Puts the commands together; imports nothing heavy, so that `vouch --help` answers at once."""

import functools
import logging
import signal
import sys
from importlib.abc import MetaPathFinder
from types import FrameType
from typing import Annotated

import typer

from vouch_labels.flows.cli import certify, demo, evaluate, imported, init, label, review, train
from vouch_labels.flows.cli.command import add, epilog
from vouch_labels.flows.console.output import read_names_as_utf8, show_plain_signs
from vouch_labels.flows.prefect_server import is_gone, leave_at_once
from vouch_labels.flows.user_folders import settle_folders
from vouch_labels.schemas.errors import UserError

app = typer.Typer(
    name="vouch",
    help="Labels images for object-detection training sets: a bucket of images in, a COCO data set out.",
    epilog=epilog(
        "vouch demo", 'vouch init pets --source ~/Pictures --classes "dog, cat"', "vouch run pets/campaign.yaml"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
add(app, init.init, label.preview, label.run, label.status, label.export, evaluate.evaluate)
add(app, review.plan_reviews, review.review, certify.certify, certify.apply, certify.simulate)
add(app, review.verdicts, train.train, evaluate.report, imported.import_, imported.audit)
app.add_typer(label.models)
add(app, evaluate.bench, demo.demo, demo.scenes)


def main() -> None:
    """Run the command line; ends the process."""
    # What cannot be logged (a full disk, a Prefect server that is gone) is no news for the terminal.
    logging.raiseExceptions = False
    show_plain_signs()
    _say_folders()
    read_names_as_utf8()
    if sys.argv[1:2] == ["status"] and "--help" not in sys.argv:
        _leave_pandas_out()
    # Without this, a terminated run would leave its embedded server behind.
    for number in (signal.SIGTERM, *_heeded(signal.SIGHUP)):
        signal.signal(number, lambda ended, _frame: sys.exit(128 + ended))
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        # All is done but what others do when the interpreter ends: the impatient need not wait for that.
        for number in _heeded(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, functools.partial(_leave, code))
        if is_gone():
            leave_at_once(code)
        raise


def _heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those that are not to be ignored, as nohup has SIGHUP and a shell's & SIGINT."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def _say_folders() -> None:
    """Tell where settings, logs and caches are where that is not the home folder; not to who only asks for help."""
    try:
        remark = settle_folders()
    except UserError as error:
        print(f"vouch: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if remark is not None and "--help" not in sys.argv:
        print(f"vouch: {remark}", file=sys.stderr)


def _leave_pandas_out() -> None:
    """Have pyarrow find no pandas, which it imports with the first list that it converts, for a fifth of a second.

    `vouch status` makes no frames, and people ask it often.
    """

    class Absent(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    finder = Absent()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


def _version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"vouch {version('vouch-labels')}")
    except PackageNotFoundError:
        print("vouch (run from its sources, not installed)")
    raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _options(version: Version = False) -> None:  # its callback has answered already
    pass


def _leave(code: int, number: int, frame: FrameType | None) -> None:
    del number, frame
    leave_at_once(code)
