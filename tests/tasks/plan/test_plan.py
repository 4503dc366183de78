"""Plans and their ledger, in folders and in a bucket, where the same images give the same shards."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import Source, Workspace
from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError, WorkspaceBusyError
from vouch_labels.schemas.records import Generation, ImageRef, ShardRef
from vouch_labels.schemas.tables import PLAN, REMOVED, SHARDS
from vouch_labels.tasks.plan.ledger import Ledger, added_shards, read_plan, removed_key, shard_key, shards_key
from vouch_labels.tasks.plan.plan import list_source, plan
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import Store

Plan = Callable[..., Generation | None]
ROOT = Path(__file__).parents[3]


def refs(keys: str, etag: str = "1") -> list[ImageRef]:
    return [ImageRef(key, etag, 10) for key in keys]


def planned(workspace: LocalStore, generation: Generation | None) -> list[list[ImageRef]]:
    assert generation is not None
    return [read_plan(workspace, "r", shard.id) for shard in generation.shards]


def files(workspace: LocalStore) -> dict[str, bytes]:
    return {info.key: workspace.get(info.key).data for info in workspace.list()}


def test_the_first_plan_cuts_everything_in_key_order(workspace: LocalStore, planner: Plan) -> None:
    generation = planner(refs("gbacfed"))
    assert planned(workspace, generation) == [refs("abc"), refs("def"), refs("g")]
    assert [(shard.first_key, shard.count) for shard in generation.shards] == [("a", 3), ("d", 3), ("g", 1)]
    assert (generation.number, generation.listed, generation.removed) == (1, 7, 0)
    assert all(len(shard.id) == 16 and int(shard.id, 16) >= 0 for shard in generation.shards)


def test_an_unchanged_source_writes_nothing(workspace: LocalStore, planner: Plan) -> None:
    planner(refs("abcd"))
    before = files(workspace)
    assert planner(reversed(refs("abcd"))) is None
    assert files(workspace) == before


def test_only_what_is_new_or_changed_is_planned_again(workspace: LocalStore, planner: Plan) -> None:
    first = planner(refs("abcdef"))
    second = planner([*refs("acdef"), ImageRef("b", "2", 10), ImageRef("bb", "1", 10), ImageRef("f2", "1", 10)])
    assert planned(workspace, second) == [[ImageRef("b", "2", 10), ImageRef("bb", "1", 10), ImageRef("f2", "1", 10)]]
    third = planner([*refs("acde"), ImageRef("b", "2", 11), ImageRef("bb", "1", 10), ImageRef("f2", "1", 10)])
    assert planned(workspace, third) == [[ImageRef("b", "2", 11)]]
    assert (third.number, third.removed) == (3, 1)
    with Ledger.load(workspace, "r") as ledger:
        assert ledger.keys_of(first.shards[0].id) == {"a", "c"}
        assert ledger.keys_of(first.shards[1].id) == {"d", "e"}
        assert ledger.keys_of(second.shards[0].id) == {"bb", "f2"}
        assert ledger.keys_of(third.shards[0].id) == {"b"}
        assert ledger.keys_of("unknown") == set()
        assert ledger.count() == 7


def test_a_shard_without_images_is_no_longer_listed(workspace: LocalStore, planner: Plan) -> None:
    first = planner(refs("abcdef"))
    planner(refs("abc"))
    with Ledger.load(workspace, "r") as ledger:
        assert ledger.shards() == [first.shards[0]]


def test_an_image_may_leave_and_come_back(workspace: LocalStore, planner: Plan) -> None:
    first = planner(refs("abcd"), 2)
    second = planner(refs("ab"), 2)
    assert (second.shards, second.removed) == ((), 2)
    third = planner(refs("abcd"), 2)
    assert third.shards == first.shards[1:]
    with Ledger.load(workspace, "r") as ledger:
        assert [ledger.keys_of(shard.id) for shard in ledger.shards()] == [{"a", "b"}, {"c", "d"}]


def test_a_change_may_be_undone(workspace: LocalStore, planner: Plan) -> None:
    first = planner(refs("ab"), 2)
    planner(refs("ab", "2"), 2)
    third = planner(refs("ab"), 2)
    assert third.shards == first.shards
    with Ledger.load(workspace, "r") as ledger:
        assert ledger.shards() == list(first.shards)


def test_a_duplicate_counts_once(workspace: LocalStore, planner: Plan) -> None:
    generation = planner([*refs("aab"), ImageRef("b", "2", 10)])
    assert planned(workspace, generation) == [refs("ab")]
    assert generation.listed == 2


def test_what_the_source_does_not_know_counts_as_unchanged(planner: Plan) -> None:
    planner([ImageRef("a", "1", 10), ImageRef("b", "", -1)])
    assert planner([ImageRef("a", "", -1), ImageRef("b", "", -1)]) is None
    assert planner([ImageRef("a", "", 10), ImageRef("b", "", -1)]) is None
    assert planner([ImageRef("a", "", 11), ImageRef("b", "", -1)]).shards[0].count == 1
    # A tag that becomes known is planned once, so that later changes show.
    assert planner([ImageRef("a", "", 11), ImageRef("b", "7", 10)]).shards[0].count == 1
    assert planner([ImageRef("a", "", 11), ImageRef("b", "7", 10)]) is None


def test_failed_images_are_planned_again_under_another_id(workspace: LocalStore, planner: Plan) -> None:
    first = planner(refs("abc"))
    second = planner(refs("abc"), retry=["a", "b", "c", "left the source"])
    third = planner(refs("abc"), retry={"a", "b", "c"})
    assert planned(workspace, second) == planned(workspace, third) == [refs("abc")]
    assert len({first.shards[0].id, second.shards[0].id, third.shards[0].id}) == 3
    with Ledger.load(workspace, "r") as ledger:
        assert ledger.shards() == list(third.shards)


def test_an_empty_source_is_refused(workspace: LocalStore, planner: Plan) -> None:
    with pytest.raises(UserError, match=r"source\.include"):
        planner([])
    with pytest.raises(UserError, match=r"source\.uri"):
        planner([], allow_empty=True)
    assert files(workspace) == {}
    planner(refs("abc"))
    with pytest.raises(UserError, match="3 images"):
        planner([])
    assert planner([], allow_empty=True).removed == 3
    with Ledger.load(workspace, "r") as ledger:
        assert (ledger.count(), ledger.shards()) == (0, [])


def test_progress_counts_rows(planner: Plan) -> None:
    seen: list[int] = []
    planner((ImageRef(str(i), "", 1) for i in range(25_000)), 10_000, progress=seen.append)
    assert seen == [10_000, 20_000, 25_000]


def test_a_listing_that_fails_plans_nothing(workspace: LocalStore) -> None:
    def source() -> Iterator[ImageRef]:
        yield from refs("abc")
        raise StoreError("the listing broke off")

    with Ledger.load(workspace, "r") as ledger:
        with pytest.raises(StoreError, match="broke off"):
            plan(source(), workspace, "r", ledger, 2)
        assert files(workspace) == {}
        assert plan(refs("abc"), workspace, "r", ledger, 2).listed == 3


def test_of_two_planners_one_wins(workspace: LocalStore) -> None:
    with Ledger.load(workspace, "r") as one, Ledger.load(workspace, "r") as two:
        assert plan(refs("abc"), workspace, "r", one, 2) is not None
        with pytest.raises(WorkspaceBusyError, match="start this one again"):
            plan(refs("abd"), workspace, "r", two, 2)
        assert (two.count(), two.generation, two.shards()) == (0, 0, [])
    with Ledger.load(workspace, "r") as ledger:
        assert ledger.keys_of(ledger.shards()[1].id) == {"c"}


def test_removals_of_the_planner_that_lost_do_not_count(workspace: LocalStore, planner: Plan) -> None:
    planner(refs("abcd"))
    with Ledger.load(workspace, "r") as one, Ledger.load(workspace, "r") as two:
        plan(refs("ab"), workspace, "r", one, 2)
        with pytest.raises(WorkspaceBusyError):
            plan(refs("cd"), workspace, "r", two, 2)
    with Ledger.load(workspace, "r") as ledger:
        assert {key for shard in ledger.shards() for key in ledger.keys_of(shard.id)} == {"a", "b"}


def test_a_full_temporary_disk_is_one_line(workspace: LocalStore) -> None:
    with Ledger.load(workspace, "r") as ledger:
        ledger.database.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match="TMPDIR"):
            plan((ImageRef(f"{i:0100}", "", 1) for i in range(20_000)), workspace, "r", ledger, 100)


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=3)
SOURCES = st.lists(st.dictionaries(KEYS, st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(SOURCES, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_ledger_is_the_last_source(
    tmp_path_factory: pytest.TempPathFactory, sources: list[dict[str, int]], size: int, rng: random.Random
) -> None:
    workspace = LocalStore(tmp_path_factory.mktemp("w"))
    for source in sources:
        rows = [ImageRef(key, str(version), version) for key, version in source.items()]
        rng.shuffle(rows)
        with Ledger.load(workspace, "r") as ledger:
            plan(rows, workspace, "r", ledger, size)
    with Ledger.load(workspace, "r") as ledger:
        held: dict[str, int] = {}
        for shard in ledger.shards():
            images = read_plan(workspace, "r", shard.id)
            assert [ref.key for ref in images] == sorted((ref.key for ref in images), key=str.encode)
            assert (shard.count, shard.first_key) == (len(images), images[0].key)
            assert 1 <= len(images) <= size
            live = ledger.keys_of(shard.id)
            assert live
            assert not held.keys() & live
            held |= {ref.key: ref.size for ref in images if ref.key in live}
        assert held == sources[-1]
        assert ledger.count() == len(held)


PLANS = """
import json, sys
from pathlib import Path
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import plan
from vouch_labels.tasks.store.local import LocalStore
from tests.processes import killed_at

workspace = LocalStore(Path(sys.argv[1]))
first = int(sys.argv[2])

def work():
    with Ledger.load(workspace, "r") as ledger:
        plan((ImageRef(f"{i:06d}.jpg", "1", i) for i in range(first, first + 1000)), workspace, "r", ledger, 10)

print(json.dumps([killed_at(work, number) for number in json.loads(sys.argv[3])]))
"""


def plans(folder: Path, first: int, kills: list[int]) -> list[tuple[int, int]]:
    """Plan so many times, killed at these operations (0: not); exit codes, and numbers of operations."""
    words = [sys.executable, "-c", PLANS, str(folder), str(first), json.dumps(kills)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, count) for code, count in json.loads(done.stdout)]


def test_a_plan_that_is_killed_and_run_again_is_the_same_as_one_that_was_not(tmp_path: Path) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    rng = random.Random(5)
    for first in (0, 500):  # the second one also removes
        [(code, operations)] = plans(whole.root, first, [0])
        assert code == 0
        # Each goes on from the one before; together they do not come to the end.
        kills = [rng.randint(1, operations // 5) for _ in range(5)]
        *killed, last = plans(broken.root, first, [*kills, 0])
        assert [code for code, _ in killed] == [-signal.SIGKILL] * 5
        assert last[0] == 0
        assert files(broken) == files(whole)
    leftovers = [path.name for path in broken.root.rglob("*") if path.name.startswith(".vouch-")]
    assert leftovers == []


MEMORY = """
import json, sys
from pathlib import Path
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import plan
from vouch_labels.tasks.store.local import LocalStore

def source(count):
    return (ImageRef(f"images/{i // 1000:05d}/some-name-{i:09d}.jpg", f"{i:032x}", i) for i in range(count))

def peak():
    # Of this program alone: getrusage's figure starts from that of the process that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))

workspace = LocalStore(Path(sys.argv[1]))
peaks = []
for count in (100_000, 300_000):
    run = f"r{count}"
    with Ledger.load(workspace, run) as ledger:
        plan(source(count), workspace, run, ledger, 1000)
    with Ledger.load(workspace, run) as ledger:
        assert plan(source(count - 5000), workspace, run, ledger, 1000).removed == 5000
    peaks.append(peak())
print(json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    first, second = json.loads(run.stdout)
    # The first run fills SQLite's page cache; 200,000 more images held in memory would take over 60 MiB.
    assert second - first < 40
    assert second < 400


def test_the_ledger_answers_threads(workspace: LocalStore, planner: Plan) -> None:
    generation = planner(refs("abcdefghijkl"), 2)
    answers: list[set[str]] = []
    with Ledger.load(workspace, "r") as ledger:
        threads = [
            threading.Thread(target=lambda shard=shard: answers.append(ledger.keys_of(shard.id)))
            for shard in generation.shards
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(sorted, answers)) == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"], ["i", "j"], ["k", "l"]]


def test_a_lost_generation_is_named(workspace: LocalStore, planner: Plan) -> None:
    planner(refs("abc"))
    planner(refs("abcd"))
    workspace.delete("runs/r/plan/000001.json")
    with pytest.raises(StoreError, match=r"plan/000001\.json is missing"):
        Ledger.load(workspace, "r")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "images")
    for key in ("b.PNG", "a/1.jpg", "a/2.jpg", "a/notes.txt", "thumbs/1.jpg"):
        store.put(key, key.encode())
    return store


def keys(store: LocalStore, base: Path | None = None, **more: Any) -> list[str]:
    source = Source.model_validate({"uri": store.uri} | more)
    refs = list(list_source(source, store, base))
    for ref in refs:
        info = store.stat(ref.key)
        assert info is None or ref == info
    return [ref.key for ref in refs]


def test_a_listing_takes_what_the_globs_say(store: LocalStore) -> None:
    assert keys(store) == ["a/1.jpg", "a/2.jpg", "b.PNG", "thumbs/1.jpg"]
    assert keys(store, exclude=["thumbs/**"]) == ["a/1.jpg", "a/2.jpg", "b.PNG"]
    assert keys(store, include=["a/*"]) == ["a/1.jpg", "a/2.jpg", "a/notes.txt"]


def test_a_listing_takes_every_format_and_what_has_no_extension(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "folder")
    taken = ["DSC_1", "a.HEIC", "b.avif", "c.gif", "d.jfif", "e.jpe", "f.jp2", "g.mpo", "h.jpeg", "i.heif", "sub/IMG_2"]
    for key in taken:
        store.put(key, b"x")
    for key in ("notes.txt", "README.md", ".DS_Store", ".git/config", "sub/.thumbnails/a.jpg", "sub/._a.jpg", "x.1"):
        store.put(key, b"x")
    (tmp_path / "folder/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "folder/pipe.jpg")
    skipped: Counter[str] = Counter()
    source = Source(uri=store.uri)
    assert [ref.key for ref in list_source(source, store, skipped=skipped)] == taken
    assert skipped == {
        "hidden": 4, "TXT": 1, "MD": 1, "other": 1, "links that lead nowhere": 1, "neither file nor folder": 1,
    }  # fmt: skip


def test_what_the_globs_leave_out_is_counted(store: LocalStore) -> None:
    skipped: Counter[str] = Counter()
    source = Source(uri=store.uri, include=("**/*.jpg",), exclude=("thumbs/**",))
    assert len(list(list_source(source, store, skipped=skipped))) == 2
    assert skipped == {"PNG": 1, "TXT": 1, "excluded by the campaign": 1}


def test_hidden_files_are_taken_where_include_names_them(store: LocalStore) -> None:
    for key in (".hidden/1.jpg", ".hidden/.2.jpg", "a/.3.jpg"):
        store.put(key, b"x")
    assert keys(store, include=["**/*.jpg"]) == ["a/1.jpg", "a/2.jpg", "thumbs/1.jpg"]
    assert keys(store, include=[".hidden/*.jpg"]) == [".hidden/.2.jpg", ".hidden/1.jpg"]
    assert keys(store, include=["./a/*.jpg"]) == ["a/1.jpg", "a/2.jpg"]


def test_kinds_of_skipped_files_are_bounded(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "folder")
    for number in range(100):
        store.put(f"a.k{number}", b"")
    skipped: Counter[str] = Counter()
    assert list(list_source(Source(uri=store.uri), store, skipped=skipped)) == []
    assert (sum(skipped.values()), len(skipped)) == (100, 41)


def test_a_manifest_stands_for_itself(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("thumbs/1.jpg\na/notes.txt\nmissing.jpg\na/1.jpg\n")
    names = ["thumbs/1.jpg", "a/notes.txt", "missing.jpg", "a/1.jpg"]
    assert keys(store, tmp_path, manifest="m.txt") == names
    assert keys(store, tmp_path, manifest="m.txt", exclude=["thumbs/**"]) == names[1:]
    assert keys(store, tmp_path, manifest="m.txt", include=["a/*"]) == ["a/notes.txt", "a/1.jpg"]
    with pytest.raises(UserError, match="does not exist"):
        keys(store, tmp_path, manifest="other.txt")


def test_a_workspace_below_the_source_is_no_source_of_images(store: LocalStore) -> None:
    def listed(uri: str, workspace: str, **more: Any) -> list[str]:
        source = Source.model_validate({"uri": uri} | more)
        return [ref.key for ref in list_source(source, store, workspace=Workspace(uri=workspace))]

    every = ["a/1.jpg", "a/2.jpg", "b.PNG", "thumbs/1.jpg"]
    assert listed(store.uri, f"{store.uri}/thumbs") == every[:3]
    assert listed(store.uri, f"{store.uri}/a/") == every[2:]
    assert listed(store.uri, f"{store.uri}/thu") == every
    assert listed("s3://bucket/in", "s3://bucket/in/a") == every[2:]
    assert listed("s3://bucket/in", "s3://bucket/in/a", s3={"endpoint_url": "http://other"}) == every
    with pytest.raises(UserError, match="source and workspace are both"):
        listed(store.uri, f"{store.uri}/")


def test_the_tables_have_their_schemas(workspace: LocalStore) -> None:
    refs = [ImageRef("ä.jpg", "x", 1), ImageRef("b.jpg", "", -1)]
    with Ledger.load(workspace, "r") as ledger:
        generation = plan(refs, workspace, "r", ledger, 10)
        shard = generation.shards[0].id
        assert read_plan(workspace, "r", shard) == refs[::-1]
        assert pq.read_table(pa.BufferReader(workspace.get(shard_key("r", shard)).data)).schema == PLAN
        generation = plan(refs[:1], workspace, "r", ledger, 10)
    key = removed_key("r", 2, generation.removed_id)
    table = pq.read_table(pa.BufferReader(workspace.get(key).data))
    assert (table.schema, table.to_pylist()) == (REMOVED, [{"key": "b.jpg"}])


def test_many_shards_are_a_table_beside_the_record(workspace: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned_twice(run: str) -> tuple[list[Generation | None], list[list[ShardRef]]]:
        with Ledger.load(workspace, run) as ledger:
            found = [plan(refs(keys), workspace, run, ledger, 2) for keys in ("abcdefg", "bcdefgh")]
            return found, [ledger.shards()]

    inline, shards = planned_twice("inline")
    monkeypatch.setattr("vouch_labels.tasks.plan.plan.INLINE_SHARDS", 3)
    monkeypatch.setattr("vouch_labels.tasks.plan.plan.BATCH_ROWS", 3)
    (first, second), same = planned_twice("r")
    assert first is not None
    assert inline[0] is not None
    assert same == shards
    assert (first.shards, second) == ((), inline[1])
    assert list(added_shards(workspace, "r", first)) == list(inline[0].shards)
    with Ledger.load(workspace, "r") as again, Ledger.load(workspace, "inline") as other:
        assert again.shards() == other.shards() == shards[0]
        assert [again.keys_of(one.id) for one in again.shards()] == [other.keys_of(one.id) for one in other.shards()]
    key = shards_key("r", 1, first.shards_id)
    assert pq.read_table(pa.BufferReader(workspace.get(key).data)).schema == SHARDS
    workspace.put(key, b"PAR1 and then nothing of use")
    with pytest.raises(StoreError, match=r"-shards\.parquet is damaged .*; restore it or start another run"):
        Ledger.load(workspace, "r")


def test_an_unknown_shard_is_missing(workspace: LocalStore) -> None:
    with pytest.raises(ObjectMissingError):
        read_plan(workspace, "r", "0" * 16)


@pytest.mark.parametrize("data", [b"", b"PAR1 and then nothing of use"])
def test_damaged_files_are_named(workspace: LocalStore, data: bytes) -> None:
    with Ledger.load(workspace, "r") as ledger:
        shard = plan([ImageRef("a", "", 1)], workspace, "r", ledger, 1).shards[0].id
    workspace.put(shard_key("r", shard), data)
    with (
        Ledger.load(workspace, "r") as ledger,
        pytest.raises(StoreError, match=rf"{shard}\.parquet is damaged .*; restore it") as raised,
    ):
        ledger.keys_of(shard)
    assert "\n" not in str(raised.value)
    workspace.put("runs/r/plan/000001.json", data)
    with pytest.raises(StoreError, match=r"000001\.json is no plan of this version .*; restore it") as raised:
        Ledger.load(workspace, "r")
    assert "\n" not in str(raised.value)


IMAGES = ["z.jpg", "é/1.png", "a b/2.JPG", "a b/notes.txt", "a.jpg", "a/1.jpg", "a-1.jpg"]


def shards_of(source: Store, workspace: Store) -> list[list[ImageRef]]:
    campaign = Source.model_validate({"uri": source.uri})
    with WorkspaceLock(workspace, "r"), Ledger.load(workspace, "r") as ledger:
        plan(list_source(campaign, source), workspace, "r", ledger, 2)
        return [
            [ref for ref in read_plan(workspace, "r", shard.id) if ref.key in ledger.keys_of(shard.id)]
            for shard in ledger.shards()
        ]


def test_a_bucket_is_planned_as_a_folder_is(s3_store: S3Store, tmp_path: Path) -> None:
    images = S3Store(s3_store.bucket, "images", s3_store.options)
    folder, workspace = LocalStore(tmp_path / "images"), LocalStore(tmp_path / "workspace")
    for store in (images, folder):
        for key in IMAGES:
            store.put(key, key.encode())
    shapes = [[(ref.key, ref.size) for ref in shard] for shard in shards_of(images, s3_store)]
    assert shapes == [[(ref.key, ref.size) for ref in shard] for shard in shards_of(folder, workspace)]
    for store in (images, folder):
        store.put("a.jpg", b"changed")
        store.delete("z.jpg")
    shapes = [[(ref.key, ref.size) for ref in shard] for shard in shards_of(images, s3_store)]
    assert shapes == [[(ref.key, ref.size) for ref in shard] for shard in shards_of(folder, workspace)]
    assert [key for shard in shapes for key, _ in shard] == ["a b/2.JPG", "a-1.jpg", "a/1.jpg", "é/1.png", "a.jpg"]
    kinds = sorted(info.key.rpartition("/")[2].partition("-")[0] for info in s3_store.list("runs/r/plan/"))
    assert kinds[:3] == ["000001.json", "000002", "000002.json"]


def test_a_planner_that_comes_second_gives_way(s3_store: S3Store) -> None:
    one, two = [ImageRef("a", "1", 1)], [ImageRef("b", "1", 1)]
    with Ledger.load(s3_store, "r") as first, Ledger.load(s3_store, "r") as second:
        assert plan(one, s3_store, "r", first, 1) is not None
        with pytest.raises(WorkspaceBusyError):
            plan(two, s3_store, "r", second, 1)
