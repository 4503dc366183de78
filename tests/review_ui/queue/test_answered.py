"""Which answers of a reviewer stand: his own, and not those that were taken back."""


def test_the_answers_of_a_reviewer_that_stand(make_queue, rows):
    queue = make_queue(4)
    first, second, third, fourth = queue.take("ann", 4)
    queue.give_back("ann", [fourth.id])
    [other] = queue.take("bob", 1)
    for reviewer, item in (("ann", first), ("ann", second), ("ann", third), ("bob", other)):
        queue.submit(reviewer, item.id, item.epoch, rows(item), 1.0)
    assert queue.undo("ann").id == third.id
    asked = [first.id, third.id, other.id, "unknown"]
    assert {name: said[0]["verdict"] for name, said in queue.answered("ann", asked).items()} == {first.id: "correct"}
    [again] = [item for item in queue.held("ann") if item.id == third.id]
    queue.submit("ann", again.id, again.epoch, rows(again, "not_an_object"), 1.0)
    assert queue.answered("ann", asked)[third.id][0]["verdict"] == "not_an_object"
    assert queue.answered("ann", []) == {}
