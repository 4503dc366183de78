"""Whatever reviewers do in whatever order: nobody shares an item, and every answer is there once."""

import uuid
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from review_ui.queue.connect import connect

REVIEWERS = ("ann", "bob", "cem")
STEPS = st.tuples(
    st.sampled_from(["take", "submit", "submit again", "skip", "undo", "give back", "renew"]),
    st.sampled_from(REVIEWERS),
    st.integers(0, 4),
)


def act(queue, rows, step, name, number, said):
    held = queue.held(name)
    item = held[number % len(held)] if held else None
    if step == "take":
        queue.take(name, number)
    elif step == "undo":
        undone = queue.undo(name)
        assert (undone is None) == (not said[name])
        if undone:
            assert undone.id == said[name].pop()
    elif step == "give back":
        queue.give_back(name)
    elif step == "renew":
        queue.renew(name)
    elif item and step == "skip":
        queue.skip(name, item.id, item.epoch)
    elif item:
        for _ in range(2 if step == "submit again" else 1):
            queue.submit(name, item.id, item.epoch, rows(item), 1.0)
        said[name].append(item.id)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.integers(1, 2), steps=st.lists(STEPS, min_size=5, max_size=25))
def test_items_and_answers_are_always_consistent(make_queue, rows, uri, wanted, steps):
    name = uuid.uuid4().hex[:12]
    queue, database = make_queue(4, wanted=wanted, name=name), connect(uri)
    said = {reviewer: [] for reviewer in REVIEWERS}
    for step, reviewer, number in steps:
        act(queue, rows, step, reviewer, number, said)
        standing = Counter(item for answers in said.values() for item in answers)
        for item in database.items.find({"queue": name}):
            holders = [lease["reviewer"] for lease in item["leases"]]
            busy = holders + item["answered_by"]
            assert len(busy) == len(set(busy)) <= wanted
            assert sorted(item["answered_by"]) == sorted(one for one in said if item["item"] in said[one])
            full = len(busy) == wanted
            assert item["state"] == ("open" if not full else "leased" if holders else "answered")
        counts = database.events.count_documents
        events = counts({"queue": name, "what": "submitted"}) - counts({"queue": name, "what": "undone"})
        assert events == sum(standing.values())
    database.close()
