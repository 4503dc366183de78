"""Two reviewers' servers, really run, for all tests of a module."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.fake_campaign import write_campaign
from tests.processes import HANG_S
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.process import ReviewerServer
from vouch_labels.review_ui.server.serve import ServeOptions, served
from vouch_labels.review_ui.session.session import dataset_name
from vouch_labels.schemas.campaign import Campaign

TOKENS = {"ann": "token-of-ann-0123456789", "ben": "token-of-ben-0123456789"}


@dataclass
class Reviewer:
    """A browser's side of a reviewer's server."""

    name: str
    queue: str
    address: str
    server: ReviewerServer
    database: Any

    @contextmanager
    def client(self, *, logged_in: bool = True) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.address, headers={"origin": self.address}, timeout=HANG_S) as client:
            if logged_in:
                assert client.get("/", params={"token": TOKENS[self.name]}).status_code == 303
            yield client

    @property
    def session(self) -> str:
        return dataset_name(self.queue, self.name)

    @property
    def dataset(self) -> dict[str, Any]:
        return self.database.datasets.find_one({"name": self.session})

    def samples(self) -> list[dict[str, Any]]:
        return list(self.database[self.dataset["sample_collection_name"]].find())

    def run(self, client: httpx.Client, operator: str, **params: Any) -> httpx.Response:
        body = {"operator_uri": f"@vouch/review/{operator}", "params": params, "dataset_name": self.session}
        return client.post("/operators/execute", json=body)


@dataclass
class Review:
    """A campaign that is reviewed."""

    campaign: Campaign
    uri: str
    ann: Reviewer
    ben: Reviewer


@pytest.fixture(scope="module")
def review(mongo: str, planned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    """Ann's and Ben's servers on one queue."""
    folder = tmp_path_factory.mktemp("review")
    shutil.copytree(planned_once, folder / "planned")
    with pytest.MonkeyPatch.context() as patch:
        name = f"test-{uuid.uuid4().hex}"
        patch.setenv("FIFTYONE_DATABASE_NAME", name)
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        campaign = write_campaign(folder / "planned", review={"batch": 4})
        queue = fill_queue(campaign, mongo).queue
        options = ServeOptions(reviewers=("ann", "ben"))
        use = DatabaseUse(mongo, lambda: False)
        with (
            MongoClient(mongo) as client,
            served(campaign, queue, use, options, TOKENS, folder / "logs") as sessions,
        ):
            ann, ben = (
                Reviewer(one.reviewer, queue, f"http://127.0.0.1:{one.port}", one, client[name]) for one in sessions
            )
            yield Review(campaign, mongo, ann, ben)
        with MongoClient(mongo) as client:
            client.drop_database(name)
