"""Label, review, certify and export from Python or a notebook, by the functions that the commands call.

    import vouch_labels as vouch

    campaign = vouch.Campaign("birds/campaign.yaml")
    campaign.run()
    frame = campaign.labels()                        # a row a label, as a Polars frame
    found = campaign.detections("2026/heron.jpg")    # as supervision.Detections

Results are the models that the commands print by `--json`. What goes wrong is a `VouchError` of one line, which says
what to do.
"""

import functools
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

# Settles what other packages read when they are imported, and where they may write.
import vouch_labels.flows  # noqa: F401
from vouch_labels.flows.user_folders import settle_folders
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import NotCertifiedError, UserError, VouchError

if TYPE_CHECKING:
    import polars as pl
    import supervision as sv
    from PIL import Image

    from vouch_labels.schemas.campaign import Campaign as CampaignConfig
    from vouch_labels.schemas.policy import Certified
    from vouch_labels.schemas.records import ApplySummary, Current, ExportOutcome, RunStatus, RunSummary
    from vouch_labels.schemas.reviews import ImportOutcome, Planned, Stage
    from vouch_labels.tasks.labels.records import ExportImage
    from vouch_labels.tasks.plan.ledger import Ledger
    from vouch_labels.tasks.store.store import Store

__all__ = ["Campaign", "NotCertifiedError", "UserError", "VouchError", "demo_campaign"]

P = ParamSpec("P")
R = TypeVar("R")


def _in_one_line(function: Callable[P, R]) -> Callable[P, R]:
    """Cut the traceback of errors meant for the user: the message says all."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VouchError as error:
            raise error.with_traceback(None) from None

    return call


class Campaign:
    """A campaign file, and what can be done with it.

    The file is read again by every call, as by every command: an edit counts from the next call on. Every call raises a
    StoreError where the workspace cannot be read or written.

    Args:
        path: The campaign file, as `vouch init` writes it.

    Raises:
        UserError: The file cannot be read or used; all its problems, a line each.
    """

    @_in_one_line
    def __init__(self, path: str | Path) -> None:
        """Read and check the file; nothing else is touched."""
        settle_folders()
        self.path = Path(path)
        load_campaign(self.path)

    def __repr__(self) -> str:
        """Name the file."""
        return f"Campaign({str(self.path)!r})"

    @property
    def config(self) -> "CampaignConfig":
        """All settings of the file, as a pydantic model.

        Raises:
            UserError: The file cannot be used any more.
        """
        return load_campaign(self.path)

    @_in_one_line
    def run(
        self,
        *,
        retry_failed: bool = False,
        export: bool = True,
        limit: int | None = None,
        accept_changes: bool = False,
        progress: bool = True,
    ) -> "RunSummary":
        """Label what is new, changed or unfinished in the source, and export the data set: `vouch run`.

        Interrupted, it keeps what is finished; the next call does the rest.

        Args:
            retry_failed: Try images that failed once more.
            export: Write the data set at the end.
            limit: Label so many images alone, the first by key; a later run goes on with the rest. None: all.
            accept_changes: Go on although source or classes are others than those labelled, or most images have
                vanished.
            progress: Print a line at each phase and every ten seconds to standard error, on a terminal a bar.

        Returns:
            The run in figures.

        Raises:
            UserError: The campaign, the source, the workspace or the models cannot be used.
            VouchError: An operation failed, or some images are not labelled; the others are.
        """
        from vouch_labels.flows.cli.label import check_complete, label
        from vouch_labels.flows.console.output import Terminal, quiet
        from vouch_labels.flows.prefect_server import signal_behind
        from vouch_labels.tasks.run import RunOptions

        load_campaign(self.path)
        options = RunOptions(retry_failed, export, accept_changes, limit, time.monotonic())
        with _prefect_muted(), quiet() as terminal:
            shown = terminal if progress else Terminal(io.StringIO(), io.StringIO())
            try:
                plain = not shown.err.isatty()
                summary = label(self.path, shown, plain=plain, options=options)
            except VouchError:
                raise
            except Exception as error:
                if signal_behind(error) is not None:
                    raise KeyboardInterrupt("finished work is kept; run again to resume") from None
                message = " ".join(str(error).split()) or "no further words"
                raise VouchError(f"unexpected {type(error).__name__}: {message[:300]}") from None
        check_complete(summary)
        return summary

    @_in_one_line
    def status(self) -> "RunStatus":
        """Tell how far the campaign is, and what comes next: `vouch status`.

        Returns:
            Images, labels, failures, policy and reviews in figures; `next` in words.

        Raises:
            VouchError: The workspace cannot be read.
        """
        from vouch_labels.tasks.status import read_status

        return read_status(self.config)

    @_in_one_line
    def labels(self, run: str | None = None) -> "pl.DataFrame":
        """Read all labels, as people left them; `.to_pandas()` makes a pandas frame of it.

        All of it is in memory: a million labels with masks take about a gigabyte. Columns:

        - `key` String, of the image, relative to the source; `width`, `height` Int32, pixels of the EXIF-oriented
          original, as all coordinates are
        - `label_id` String; `class_name` String; `x0`, `y0`, `x1`, `y1` Float32, pixels, right and bottom exclusive
        - `detector_score` Float32 in [0, 1], null for a label that people drew; `p_correct` Float32 in [0, 1], the
          calibrated probability, null before there is a calibrator
        - `decision` String, accept or review, null for a label that people drew; `policy` String, which decided
        - `reviewed` String, empty or what people made of it: kept, corrected, added, rejected, unclear, disputed;
          `provenance` String: auto, human, simulated
        - `rle_counts` Binary, compressed COCO RLE of the image's size, null without a mask; `mask_area` Int64, pixels
        - the signals as Float32, null for a label that people drew: the other numbers of [the tables in the
          workspace](#tables-in-the-workspace)

        Args:
            run: Name of the run; that of the campaign file by default.

        Returns:
            A row a label, images in plan order, best score first.

        Raises:
            UserError: The run has no labels yet.
        """
        from vouch_labels.tasks.export.export import reviewed_images
        from vouch_labels.tasks.labels.convert import label_frame, read_signals

        with self._opened(run) as (workspace, name, current, ledger):
            signals = read_signals(workspace, name, ledger, current.fingerprint)
            return label_frame(reviewed_images(workspace, name, ledger, current), signals)

    @_in_one_line
    def detections(self, key: str, run: str | None = None) -> "sv.Detections":
        """Read the labels of one image, but those that people rejected.

        Args:
            key: Of the image, relative to the source.
            run: Name of the run; that of the campaign file by default.

        Returns:
            N labels: `xyxy` (N, 4) float32, pixels of the EXIF-oriented original; `mask` (N, height, width) bool;
            `confidence` (N,) float32, the detector's score, NaN for a label that people drew; `class_id` (N,) int, the
            place of the class in the campaign that labelled it; `data` with label_id, class_name, decision, reviewed
            and provenance, (N,) strings.

        Raises:
            UserError: The run has no labels yet, or has not labelled this image.
        """
        from vouch_labels.tasks.labels.convert import detections_of

        image, class_names = self._image(key, run)
        return detections_of(image.labels, image, class_names)

    def iter_detections(self, run: str | None = None) -> "Iterator[tuple[str, sv.Detections]]":
        """Stream the labels of all labelled images, those without a label too, in constant memory.

        Args:
            run: Name of the run; that of the campaign file by default.

        Yields:
            Key of an image, and its labels as `detections` gives them; images in plan order.

        Raises:
            UserError: The run has no labels yet.
        """
        from vouch_labels.tasks.export.export import reviewed_images
        from vouch_labels.tasks.labels.convert import detections_of

        with self._opened(run) as (workspace, name, current, ledger):
            for image in map(_without_rejected, reviewed_images(workspace, name, ledger, current)):
                yield image.key, detections_of(image.labels, image, current.shown)

    @_in_one_line
    def show(self, key: str, *, side: int | None = None, run: str | None = None) -> "Image.Image":
        """Draw an image with its labels; a notebook shows what is returned.

        Accepted labels have the colour of their class, with mask, box, name and detector score; labels that wait for
        review have a thin grey box and a question mark.

        Args:
            key: Of the image, relative to the source.
            side: Longer side of the picture, pixels; that of the image by default.
            run: Name of the run; that of the campaign file by default.

        Returns:
            An RGB picture.

        Raises:
            UserError: The run has no labels yet, or has not labelled this image, or it cannot be decoded any more.
            StoreError: The source or the workspace cannot be read.
        """
        from vouch_labels.tasks.decode import DecodedImage, decode
        from vouch_labels.tasks.preview import draw_labels
        from vouch_labels.tasks.store.source import open_source

        image, class_names = self._image(key, run)
        source = self.config.source
        decoded = decode(key, open_source(source, self.config.workspace).get(key).data, source.max_pixels)
        if not isinstance(decoded, DecodedImage):
            raise UserError(f"{key}: cannot be shown: {decoded.reason}")
        return draw_labels(decoded.pixels, image, class_names, side or max(image.width, image.height))

    @_in_one_line
    def plan_reviews(
        self,
        minutes: float = 30,
        *,
        stage: "Stage | None" = None,
        honeypots: int = 0,
        images: int = 0,
        misses: int = 0,
        fresh: bool = False,
    ) -> "Planned":
        """Draw what people shall review next: `vouch plan-reviews`.

        Args:
            minutes: Reviewers' time for all of it.
            stage: What to draw; None: what is next.
            honeypots: Known-wrong labels to mix in, to see what reviewers miss.
            images: Images to be searched for every object, to know the recall.
            misses: Classes to look for that CLIP sees in an image and no box shows.
            fresh: Draw a certification sample again though the last one could go on.

        Returns:
            The plan and what is in it; `review_tasks` gives its tasks.

        Raises:
            UserError: There is nothing to draw, the time is too short, or earlier tasks come first.
        """
        from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews

        return plan_reviews(self.config, ReviewRequest(minutes, stage, honeypots, images, misses, fresh))

    @_in_one_line
    def review_tasks(self, plan: int | None = None) -> "pl.DataFrame":
        """Read the tasks of a review plan that wait for an answer: `vouch verdicts --tasks`.

        Filled in, it is what `import_verdicts` takes; the columns are those of [review
        files](../review-files.md).

        Args:
            plan: Its number; None: the last.

        Returns:
            A row a task, in the order in which to ask: what is asked about, and empty columns for the answer.

        Raises:
            UserError: There is no such plan.
        """
        import polars as pl

        from vouch_labels.tasks.reviews.open_tasks import task_sheet

        return pl.DataFrame(task_sheet(self.config, plan))

    @_in_one_line
    def import_verdicts(self, verdicts: "pl.DataFrame | str | Path", reviewer: str | None = None) -> "ImportOutcome":
        """Add review decisions, all of them or, where a row is none, nothing: `vouch verdicts FILE`.

        Args:
            verdicts: A frame, or a .csv, .parquet, .json or .jsonl file, with a row a decision.
            reviewer: Who answered, where a row does not say; you, by the system's user name.

        Returns:
            What became of the rows.

        Raises:
            UserError: The campaign has no labels yet, or a row is no decision; names the first.
        """
        from vouch_labels.flows.cli.review import me
        from vouch_labels.tasks.reviews.import_verdicts import import_files
        from vouch_labels.tasks.reviews.read_file import write_table

        reviewer = me() if reviewer is None else reviewer
        if isinstance(verdicts, str | Path):
            return import_files(self.config, [Path(verdicts)], reviewer)[0]
        with tempfile.TemporaryDirectory(prefix="vouch-") as folder:
            file = Path(folder) / "verdicts.parquet"
            write_table(file, verdicts.to_arrow())
            try:
                outcome = import_files(self.config, [file], reviewer)[0]
            except UserError as error:
                raise UserError(str(error).replace(str(file), "the frame")) from None
        return outcome.model_copy(update={"file": "the frame"})

    @_in_one_line
    def simulate_review(self, truth: str | Path, minutes: float = 30) -> "Planned":
        """Plan what is to be reviewed next, and answer it from ground truth, to try the procedure out.

        The answers, and all that is certified by them, are marked as simulated.

        Args:
            truth: COCO annotations of (some of) the images.
            minutes: Reviewers' time that the plan is made for.

        Returns:
            The plan as it was drawn; all of its tasks are answered now.

        Raises:
            UserError: There is nothing to ask, or the truth fits none of the labels.
        """
        from vouch_labels.tasks.certify.plan_reviews import ReviewRequest
        from vouch_labels.tasks.evaluate.run_truth import truth_of_campaign
        from vouch_labels.tasks.simulate.simulate import review_next

        config = self.config
        labels, answers = truth_of_campaign(config, Path(truth))
        return review_next(config, labels, answers, ReviewRequest(minutes)).planned

    @_in_one_line
    def certify(self, *, unanswered_as_wrong: bool = False) -> "Certified":
        """Test the reviewed certification sample, and write the policy that it allows: `vouch certify`.

        Nothing is accepted by it before `apply`. Each result with new review decisions spends a part of the confidence.

        Args:
            unanswered_as_wrong: Count certification tasks without an answer as wrong.

        Returns:
            The result of each group of classes; `version` of the policy, None where nothing could be certified.

        Raises:
            UserError: The sample is not drawn or not answered yet.
            NotCertifiedError: The sample could certify nothing from the start.
        """
        from vouch_labels.tasks.certify.certify import certify_campaign

        return certify_campaign(self.config, unanswered_as_wrong)

    @_in_one_line
    def apply(self, policy: str | None = None, *, export: bool = True) -> "ApplySummary":
        """Decide over all labels by a policy, without a model, and export: `vouch apply`.

        Args:
            policy: Version of the policy; `none`: the thresholds of the campaign; None: the newest certified one.
            export: Write the data set at the end.

        Returns:
            What has changed.

        Raises:
            UserError: There is no such policy, or it does not fit the labels.
        """
        from vouch_labels.tasks.certify.apply import apply_policy

        return apply_policy(self.config, policy, export=export)

    @_in_one_line
    def export(self, **settings: Any) -> "ExportOutcome":  # noqa: ANN401 - as the file's keys are
        """Write data sets from the labels that are there: `vouch export`.

        Args:
            settings: Keys of the campaign's `export` section that go before it: name, formats, preset, undecided,
                images, splits, ...

        Returns:
            Where it lies, and what is in it; `others` has those in further formats.

        Raises:
            UserError: The campaign has not been run yet, a setting cannot be used, or the data set is another run's.
        """
        from vouch_labels.tasks.export.export import with_export_settings
        from vouch_labels.tasks.run import export_campaign

        return export_campaign(with_export_settings(self.config, settings))

    @contextmanager
    def _opened(self, run: str | None) -> "Iterator[tuple[Store, str, Current, Ledger]]":
        """A run that has been started, open for reading: workspace, name, its markers, ledger."""
        from vouch_labels.tasks.labels.arrays import current_of
        from vouch_labels.tasks.plan.ledger import Ledger
        from vouch_labels.tasks.store.open import open_workspace

        config = self.config
        workspace, name = open_workspace(config.workspace), run or config.run.name
        current = current_of(workspace, name)
        with Ledger.load(workspace, name) as ledger:
            yield workspace, name, current, ledger

    def _image(self, key: str, run: str | None) -> "tuple[ExportImage, tuple[str, ...]]":
        import pyarrow as pa

        from vouch_labels.tasks.export.export import reviewed_images

        with self._opened(run) as (workspace, name, current, ledger):
            found: Iterable[ExportImage] = reviewed_images(
                workspace, name, ledger, current, pa.array([key], pa.string())
            )
            for image in found:
                return _without_rejected(image), current.shown
        raise UserError(
            f"run {name!r} has no labelled image {key!r}; keys are relative to the source, and `vouch status CAMPAIGN "
            "--failed` lists images that failed"
        )


def _without_rejected(image: "ExportImage") -> "ExportImage":
    return image._replace(labels=[label for label in image.labels if label.reviewed != "rejected"])


@contextmanager
def _prefect_muted() -> Iterator[None]:
    """Keep Prefect's log, tracebacks among it, off the screen; its server keeps what it is told."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    import vouch_labels.flows.run  # noqa: F401 - here, as it logs to where standard error is when it is imported

    logger = logging.getLogger("prefect")
    before, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = before


@_in_one_line
def demo_campaign(folder: str | Path) -> Campaign:
    """Put the bundled sample images and a campaign of the bundled models into a folder, as `vouch demo` does.

    What is there already is kept.

    Args:
        folder: Made if there is none. Gets images/ and campaign.yaml.

    Returns:
        The campaign, which has not been run.

    Raises:
        UserError: The folder cannot be written.
    """
    from vouch_labels.flows.cli.demo import prepare

    return Campaign(prepare(Path(folder)))
