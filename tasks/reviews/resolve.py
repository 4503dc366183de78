"""Makes one answer a label of all verdicts on it, and gathers those about images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS, VERDICTS, SecondReadings
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import distinct, places_in
from vouch_labels.tasks.reviews.verdicts import in_time
from vouch_labels.tasks.statistics.bounds import lower_bound, upper_bound

DISPUTED: Final = "disputed"
ANSWERS: Final = (*LABEL_VERDICTS, DISPUTED)
"""What an answer may be; the codes of Answers are places in it."""
CORRECT, WRONG, IN_DISPUTE, NO_ANSWER = 0, 1, 2, -1
"""Values of Answers.wrong_of."""


@dataclass(frozen=True)
class Answers:
    """What people together say of n labels: those that have a verdict."""

    label_ids: tuple[str, ...]
    """In the order of their first verdicts."""
    verdict: list[str]
    """n members of ANSWERS."""
    class_name: list[str | None]
    """The right class, where one was given and all who gave one agree."""
    boxes: NDArray[np.float32]
    """(n, 4) xyxy, pixels of the EXIF-oriented original: the box as it should be, the latest given; NaN without."""
    seconds: NDArray[np.float64]
    """(n,) time of all reviewers; NaN where none was given."""
    simulated: NDArray[np.bool_]
    """(n,) whether a verdict came from a simulated reviewer."""
    reviewers: NDArray[np.int64]
    """(n,) how many gave a verdict."""
    masks: pa.ChunkedArray
    """n compressed COCO RLE counts: the mask as it should be, the latest given; null without, and where the box that
    counts is a later, other one."""
    ids: pa.StringArray
    """label_ids, for look-up."""

    def places(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.int64]:
        """Find labels: (m,) places in label_ids, -1 for those without an answer."""
        wanted = label_ids if isinstance(label_ids, pa.Array | pa.ChunkedArray) else pa.array(label_ids, pa.string())
        return places_in(wanted, self.ids)

    def wrong_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.int8]:
        """Say of labels whether they are wrong, (m,): 0 correct, 1 wrong, 2 disputed, -1 no answer."""
        return self._of(self._codes, label_ids, NO_ANSWER)

    def seconds_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.float64]:
        """Give the time that labels took, (m,), NaN where it is unknown."""
        return self._of(self.seconds, label_ids, np.nan)

    def simulated_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.bool_]:
        """Say of labels whether a simulated reviewer answered, (m,)."""
        return self._of(self.simulated, label_ids, False)

    @cached_property
    def _codes(self) -> NDArray[np.int8]:
        """Values of wrong_of, (n,); kept, since every plan of a run asks for its own labels."""
        codes = np.array([CORRECT, WRONG, WRONG, WRONG, IN_DISPUTE], np.int8)
        place = {name: code for code, name in enumerate(ANSWERS)}
        return codes[np.array([place[name] for name in self.verdict], np.int64)]

    def _of(self, values: NDArray[Any], label_ids: Sequence[str] | pa.Array, missing: object) -> NDArray[Any]:
        places = self.places(label_ids)
        # One entry more, which -1 finds.
        return np.append(values, np.array([missing], values.dtype))[places]


@dataclass(frozen=True)
class ImageAnswers:
    """What people say of whole images."""

    checked: pa.Table
    """key, class_name (null: every class), simulated: each pair once, in the order of the first verdicts."""
    missed: pa.Table
    """key, class_name, x0, y0, x1, y1 (pixels, xyxy), reviewer, simulated: each object once, as exactly stated; and
    rle_counts, the latest mask given of it (null without)."""
    seconds: float
    """Time of all verdicts about images, each once."""


def resolve(verdicts: pa.Table) -> Answers:
    """Resolve the verdicts of every label to one answer.

    A later verdict of a reviewer replaces their earlier one: later by reviewed_at (none counts as earliest), and at
    equal times by the order of rows. Equal verdicts of several reviewers agree; different ones make the label disputed,
    until more than half of them are one verdict, which counts alone then.
    Rows that come again change nothing. Where people answered, simulated verdicts are passed over.
    """
    if not verdicts.num_rows:
        return _nobody_answered()
    import polars as pl  # not at the top: `vouch status` and others have no verdicts to resolve, and it takes 50 MB

    rows = pl.DataFrame(effective_verdicts(verdicts)).with_columns(pl.col("seconds").cast(pl.Float64).fill_nan(None))
    box, mask = pl.all_horizontal(pl.col(BOX).is_finite()), pl.col("rle_counts").is_not_null()
    counts = ~pl.col("outvoted")
    verdict, class_name = pl.col("verdict").filter(counts), pl.col("class_name").filter(counts).drop_nulls()
    # Outvoted: more than half of the label's reviewers contradict it by one other verdict.
    most = pl.len().over("label_id", "verdict") * 2 > pl.len().over("label_id")
    found = (
        rows.with_columns(most=most)
        .with_columns(outvoted=pl.col("most").any().over("label_id") & ~pl.col("most"))
        .with_row_index("row")
        .group_by("label_id", maintain_order=True)
        .agg(
            pl.when(verdict.n_unique() == 1).then(verdict.first()).otherwise(pl.lit(DISPUTED)).alias("verdict"),
            pl.when(class_name.n_unique() == 1).then(class_name.first()).alias("class_name"),
            pl.col("row", *BOX).filter(box & counts).last(),
            pl.col("row", *BOX, "rle_counts").filter(mask & counts).last().name.prefix("mask_"),
            pl.when(pl.col("seconds").count() > 0).then(pl.col("seconds").sum()),
            pl.col("simulated").any(),
            pl.len().alias("reviewers"),
        )
    )
    same_box = pl.all_horizontal(pl.col(f"mask_{side}") == pl.col(side) for side in BOX)
    # A mask was not drawn for another box that came later.
    fits = pl.col("row").is_null() | (pl.col("mask_row") >= pl.col("row")) | same_box
    masks = found.select(pl.when(fits).then(pl.col("mask_rle_counts")).alias("masks")).to_arrow()["masks"]
    ids = found["label_id"].to_arrow().cast(pa.string())
    return Answers(
        label_ids=tuple(ids.to_pylist()),
        verdict=found["verdict"].to_list(),
        class_name=found["class_name"].to_list(),
        boxes=found.select(pl.col(BOX).fill_null(math.nan)).to_numpy(),
        seconds=found["seconds"].fill_null(math.nan).to_numpy(),
        simulated=found["simulated"].to_numpy(),
        reviewers=found["reviewers"].cast(pl.Int64).to_numpy(),
        masks=masks.cast(pa.binary()),
        ids=ids,
    )


def _nobody_answered() -> Answers:
    return Answers(
        label_ids=(),
        verdict=[],
        class_name=[],
        boxes=np.zeros((0, 4), np.float32),
        seconds=np.zeros(0),
        simulated=np.zeros(0, np.bool_),
        reviewers=np.zeros(0, np.int64),
        masks=pa.chunked_array([], pa.binary()),
        ids=pa.array([], pa.string()),
    )


def effective_verdicts(verdicts: pa.Table) -> pa.Table:
    """Keep the effective verdicts on labels, simulated ones only where no others are."""
    return last_verdicts(_people_first(verdicts))


def _people_first(verdicts: pa.Table) -> pa.Table:
    """Leave out simulated verdicts on labels that people gave one on."""
    simulated = verdicts["simulated"]
    by_people = verdicts.filter(pc.invert(simulated))["label_id"].drop_null().combine_chunks()
    replaced = pc.and_(simulated, pc.is_in(verdicts["label_id"], value_set=by_people, skip_nulls=True))
    return verdicts.filter(pc.invert(replaced))


def last_verdicts(verdicts: pa.Table) -> pa.Table:
    """Keep the last verdict of each reviewer on each label: rows label by label, in time within each.

    Verdicts about images are left out.
    """
    import polars as pl

    rows = in_time(verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(LABEL_VERDICTS))))
    frame = pl.DataFrame(rows.select(["label_id", "reviewer"])).with_row_index("row")
    labels_first = pl.col("row").min().over("label_id")
    last = frame.with_columns(first=labels_first).unique(["label_id", "reviewer"], keep="last").sort("first", "row")
    return rows.take(last["row"].to_arrow())


def second_readings(verdicts: pa.Table, answers: Answers, confidence: float = 0.9) -> SecondReadings:
    """Estimate which share m of the wrong labels a reviewer misses, by the labels that two have read.

    Of each label count the first verdicts of the two who came first: what they said before they could know of a
    dispute. If both miss each wrong label with chance m, independently, then of the wrong ones that at least one of
    them finds, the other misses the share q = 2 m (1 - m) / (1 - m^2) = 2 m / (1 + m), so m = q / (2 - q), which grows
    with q: the Clopper-Pearson bounds of q are carried over. Disputed labels count as wrong, so that a false alarm
    counts as a miss of the other's: where it is settled, it leaves. The interval is two-sided; `answers` are what
    `resolve` makes of these verdicts, or of more.
    """
    import polars as pl

    people = _people_first(verdicts)
    given = in_time(people.filter(pc.is_in(people["verdict"], value_set=pa.array(LABEL_VERDICTS))))
    twice = (
        pl.DataFrame(given.select(["label_id", "reviewer", "verdict"]))
        .unique(["label_id", "reviewer"], keep="first", maintain_order=True)
        .group_by("label_id", maintain_order=True)
        .agg(pl.len().alias("readers"), (pl.col("verdict").head(2) != "correct").sum().alias("found"))
        .filter(pl.col("readers") > 1)
    )
    is_wrong = np.isin(answers.wrong_of(twice["label_id"].to_arrow().cast(pa.string())), (WRONG, IN_DISPUTE))
    found = twice["found"].to_numpy()[is_wrong]
    wrong, missed = int((found > 0).sum()), int((found == 1).sum())
    counts = SecondReadings(labels=twice.height, wrong=wrong, missed=missed, confidence=confidence)
    if not wrong:
        return counts
    tail = (1 - confidence) / 2
    q = np.array([missed / wrong, lower_bound(missed, wrong, tail), upper_bound(missed, wrong, tail)])
    share, low, high = (q / (2 - q)).tolist()
    return counts.model_copy(update={"share": share, "low": low, "high": high})


def missed_and_checked(verdicts: pa.Table) -> ImageAnswers:
    """Gather the verdicts about images, each once, however often it came."""
    rows = in_time(verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(IMAGE_VERDICTS))))
    rows = distinct(rows, rows.column_names)
    checked = rows.filter(pc.equal(rows["verdict"], "checked"))
    missed = rows.filter(pc.equal(rows["verdict"], "missed"))
    return ImageAnswers(
        checked=distinct(checked, ["key", "class_name"]).select(["key", "class_name", "simulated"]),
        missed=_each_object_once(missed),
        seconds=float(pc.sum(rows["seconds"]).as_py() or 0),
    )


def _each_object_once(missed: pa.Table) -> pa.Table:
    names = ["key", "class_name", *BOX, "reviewer"]
    schema = pa.schema([VERDICTS.field(name) for name in (*names, "simulated", "rle_counts")])
    if not missed.num_rows:
        return schema.empty_table()
    import polars as pl

    objects = (
        pl.DataFrame(missed)
        .group_by(names, maintain_order=True)
        .agg(pl.col("simulated").first(), pl.col("rle_counts").drop_nulls().last())
    )
    return objects.to_arrow().cast(schema)
