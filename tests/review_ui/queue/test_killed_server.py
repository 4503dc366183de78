"""mongod killed in the middle of answers: what was acknowledged is there, and everything goes on."""

import threading
import time

import pytest

from tests.processes import HANG_S, until
from vouch_labels.review_ui.queue.database import connect, start_mongod
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.errors import LeaseLostError, VouchError

ITEMS = 600
REVIEWERS = ("ann", "bob", "cem")


class Server:
    """A mongod that can be killed and started again where it was."""

    def __init__(self, folder):
        self.folder = folder
        self.process, self.uri = start_mongod(folder)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def start(self):
        self.process, _ = start_mongod(self.folder, self.uri)


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path / "db")
    yield found
    found.kill()


@pytest.fixture
def uri(server):
    return server.uri


def work(uri, name, rows, acknowledged, stop):
    """Take and answer until nothing is left or the test is over, whatever the server does."""
    queue = None
    while not stop.is_set():
        try:
            queue = queue or Queue.open(uri, "0123456789ab")
            items = queue.take(name, 10)
            if not items:
                break
            for item in items:
                verdict = "correct" if int(item.id, 16) % 3 else "not_an_object"
                queue.submit(name, item.id, item.epoch, rows(item, verdict), 1.0)
                # Acknowledged from here on.
                acknowledged[item.id] = (name, item.epoch, verdict)
        except LeaseLostError:
            continue
        except VouchError:
            time.sleep(0.05)
    if queue:
        queue.close()


@pytest.mark.mongod
def test_what_was_acknowledged_survives_a_kill_of_the_server(server, make_queue, rows, request):
    make_queue(ITEMS)
    acknowledged, stop = {}, threading.Event()
    request.addfinalizer(stop.set)
    threads = [
        threading.Thread(target=work, args=(server.uri, name, rows, acknowledged, stop), daemon=True)
        for name in REVIEWERS
    ]
    for thread in threads:
        thread.start()
    for share in (0.2, 0.5):
        until(lambda least=share * ITEMS: len(acknowledged) >= least)
        server.kill()
        before = dict(acknowledged)
        server.start()
        database = connect(server.uri)
        kept = {event["item"]: event for event in database.events.find({"what": "submitted"})}
        database.close()
        found = {item: (kept[item]["reviewer"], kept[item]["epoch"], kept[item]["verdict"]) for item in before}
        assert found == before
    for thread in threads:
        thread.join(HANG_S)
    database = connect(server.uri)
    answers = [event["item"] for event in database.events.find({"what": "submitted"})]
    database.close()
    assert len(answers) == len(set(answers)) == ITEMS
    assert set(acknowledged) <= set(answers)
    with Queue.open(server.uri, "0123456789ab") as queue:
        assert progress(queue, "ann").answered == ITEMS
