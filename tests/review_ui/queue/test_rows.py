"""Rows of answers: what is no answer to the item is refused before anything is written."""

import pytest

BOX = {"x0": 1, "y0": 2, "x1": 3, "y1": 4}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "fine"}, "is answered by one of correct, wrong_class"),
        ({"verdict": "checked"}, "is answered by one of correct, wrong_class"),
        ({"verdict": "missed", "class_name": "dog", **BOX}, "a missed object has no label"),
        ({"verdict": "missed", "label_id": None, "class_name": "dog", **BOX}, "one verdict about its item"),
        ({"label_id": "another"}, "about another label or image"),
        ({"key": "another.jpg"}, "about another label or image"),
        ({"label_id": None}, "is answered by one of correct, wrong_class"),
        ({"verdict": "wrong_class", "class_name": "cat"}, "the label is 'cat' already"),
        ({"verdict": "wrong_class", "class_name": "horse"}, "'horse' is no class of the campaign"),
        ({"verdict": "bad_box", **BOX, "x1": 0}, "a box is not x0 < x1"),
        ({"reviewer": "eve"}, "has no column 'reviewer'"),
        ({"verdict": "bad_box", **BOX, "rle_counts": b"P13700000l0"}, "pixels"),
        ({"verdict": "bad_box", **BOX, "rle_counts": b"\xff"}, "no compressed COCO RLE"),
    ],
)
def test_what_is_no_verdict_is_refused(make_queue, rows, change, said):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    (row,) = rows(item)
    with pytest.raises(ValueError, match=said):
        queue.submit("ann", item.id, item.epoch, [row | change], 1.0)
    assert queue.holds("ann", item.id)


def test_an_answer_needs_a_row_and_a_time_that_is_one(make_queue, rows):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    with pytest.raises(ValueError, match="one verdict"):
        queue.submit("ann", item.id, item.epoch, [], 1.0)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no time"):
            queue.submit("ann", item.id, item.epoch, rows(item), seconds)
    with pytest.raises(ValueError, match="no item of the queue"):
        queue.submit("ann", "another", 1, rows(item), 1.0)


def test_a_question_about_an_image_is_answered_by_checked_of_what_was_looked_for(planned, rows):
    with planned.open() as queue:
        item = queue.take("ann", 1, kind="possible_miss")[0]
        for verdict in (rows(item, class_name=None), rows(item, "missed", **BOX), rows(item, label_id="x")):
            with pytest.raises(ValueError, match=r"`checked`|one verdict|another label"):
                queue.submit("ann", item.id, item.epoch, verdict, 1.0)
        queue.submit("ann", item.id, item.epoch, [*rows(item, "missed", **BOX), *rows(item)], 1.0)


@pytest.mark.parametrize(("verdict", "kept"), [("correct", True), ("not_an_object", False)])
def test_a_mask_is_mended_though_class_and_box_are_right(make_queue, rows, verdict, kept):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item, verdict, class_name="dog", **BOX, rle_counts=item.rle), 1.0)
    row = queue._session.database.events.find_one({"what": "submitted"})["verdicts"][0]
    assert [row["class_name"], row["x0"]] == [None, None]
    assert (row["rle_counts"] == item.rle) is kept


def test_an_answer_keeps_how_far_the_box_was_corrected(make_queue, rows):
    queue = make_queue(2)
    kept, moved = queue.take("ann", 2)
    x0, y0, x1, y1 = moved.box
    half = {"x0": x0, "y0": y0, "x1": (x0 + x1) / 2, "y1": y1}
    queue.submit("ann", kept.id, kept.epoch, rows(kept), 1.0)
    queue.submit("ann", moved.id, moved.epoch, rows(moved, "bad_box", **half), 1.0)
    events = queue._session.database.events.find({"what": "submitted"}, sort=[("seq", 1)])
    assert [one["box_iou"] for one in events] == [None, pytest.approx(0.5)]
