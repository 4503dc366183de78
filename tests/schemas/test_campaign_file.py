import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import ReviewConfig
from vouch_labels.schemas.campaign_file import MAX_BYTES, load_campaign, parse_yaml
from vouch_labels.schemas.errors import CampaignError, UserError

GOOD = "source: images\nworkspace: {uri: s3://bucket/ws}\nclasses: [cat]\n"


def load(tmp_path: Path, text: str, name: str = "campaign.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_campaign(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(CampaignError) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 2
    return [line.removeprefix(str(tmp_path) + "/") for line in str(caught.value).splitlines()]


def test_smallest_campaign(tmp_path):
    campaign = load(tmp_path, GOOD)
    assert campaign.source.uri == str(tmp_path / "images")
    assert campaign.workspace.uri == "s3://bucket/ws"
    assert campaign.classes[0].texts == ("cat",)


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load(tmp_path, "\ufeff" + GOOD).classes[0].name == "cat"


def test_sections_and_keys_without_a_value_have_their_defaults(tmp_path):
    campaign = load(tmp_path, GOOD + "models:\n  detector:\n    batch_size:\nexport: ~\nrun:\n")
    assert campaign == load(tmp_path, GOOD)


def test_every_problem_is_told_at_once_with_its_line(tmp_path):
    text = """\
source:
  uri: 5
  s3: {threads: many}
classes:
  - prompts: [a, ""]
  - 5
  - name: 7
    accept: {clip_probabilty: 1}
models:
  precision: fp-32
  scorer: {templates: 5, contexts: [1.0]}
  detector:
    batchsize: 3
    sha256: abc
    batch_size: 1.5
    min_score: 1.5
export: {splits: {train: 1.0}, preset: yolo-x}
run: {name: "-", retries: 99}
routing: 3
"""
    assert problems(tmp_path, text) == [
        "campaign.yaml:1: workspace: missing: Where plans, labels, policies and exports are kept.",
        'campaign.yaml:2: source.uri: must be a text, not 5; put it in quotes: "5"',
        "campaign.yaml:3: source.s3.threads: must be a whole number, not 'many'",
        "campaign.yaml:5: classes[0].name: missing: Name of the category in the export.",
        "campaign.yaml:5: classes[0].prompts: an empty prompt finds nothing; remove it",
        'campaign.yaml:6: classes[1]: must be a section of keys, not 5; a text goes in quotes: "5"',
        'campaign.yaml:7: classes[2].name: must be a text, not 7; put it in quotes: "7"',
        "campaign.yaml:8: classes[2].accept.clip_probabilty: unknown key; did you mean clip_probability?",
        "campaign.yaml:10: models.precision: must be 'auto', 'fp32' or 'bf16', not 'fp-32'; did you mean fp32?",
        "campaign.yaml:11: models.scorer.contexts: has too few items",
        "campaign.yaml:11: models.scorer.templates: must be 'plain', 'photo' or 'imagenet' or a list, as in [one, two]"
        ", not 5",
        "campaign.yaml:13: models.detector.batchsize: unknown key; did you mean batch_size?",
        "campaign.yaml:14: models.detector.sha256: 'abc' is not a SHA-256: 64 digits of 0-9 and a-f",
        "campaign.yaml:15: models.detector.batch_size: must be 'auto' or a whole number, not 1.5",
        "campaign.yaml:16: models.detector.min_score: must be at most 1, not 1.5",
        "campaign.yaml:17: export.preset: must be 'coco', 'detectron2', 'yolox', 'rtdetr', 'torchvision' or "
        "'zero_based', not 'yolo-x'; did you mean yolox?",
        "campaign.yaml:17: export.splits: train + val + test must be 1, not 1.2",
        "campaign.yaml:18: run.name: '-' is not a name: letters, digits, '.', '_' and '-', the first a letter or digit",
        "campaign.yaml:18: run.retries: must be at most 20, not 99",
        "campaign.yaml:19: routing: must be a section of keys, not 3",
    ]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("detector: x\n", "campaign.yaml:4: detector: unknown key; did you mean models.detector?"),
        (
            "batch_size: 1\n",
            "campaign.yaml:4: batch_size: unknown key; did you mean models.detector.batch_size or "
            "models.segmenter.batch_size or models.scorer.batch_size?",
        ),
        (
            "zzz: 1\n",
            "campaign.yaml:4: zzz: unknown key; use one of source, workspace, classes, models, routing, review, "
            "export, run",
        ),
        (
            "zzz:\n",
            "campaign.yaml:4: zzz: unknown key; use one of source, workspace, classes, models, routing, review, "
            "export, run",
        ),
        ("run: {retries: true}\n", "campaign.yaml:4: run.retries: must be a number, not true"),
        ("run: {retry_delay_s: .inf}\n", "campaign.yaml:4: run.retry_delay_s: must be a finite number"),
        ("run: {retry_delay_s: -1}\n", "campaign.yaml:4: run.retry_delay_s: must be at least 0, not -1"),
        ("run: {shard_timeout_s: 0}\n", "campaign.yaml:4: run.shard_timeout_s: must be greater than 0, not 0"),
        (
            "routing: {accept: {}}\n",
            "campaign.yaml:4: routing.accept: names no signal, which would accept everything; "
            "give at least one least value",
        ),
        (
            "routing:\n  accept:\n    sam_iou:\n",
            "campaign.yaml:5: routing.accept: names no signal, which would accept "
            "everything; give at least one least value",
        ),
        ("run: {name: a}\nrun: {name: b}\n", "campaign.yaml:5: run: given twice, first in line 4; keep one"),
        (
            "models: !!python/object/apply:os.system [id]\n",
            "campaign.yaml:4: models: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed; write "
            "the value alone",
        ),
        ("run: {[1]: 2}\n", "campaign.yaml:4: run: a key must be a text"),
        ("run: {a: 1\n", "campaign.yaml:5: not YAML: expected ',' or '}', but got '<stream end>'"),
        (
            "run:\n\tname: a\n",
            "campaign.yaml:5: not YAML: found character '\\t' that cannot start any token; "
            "indent with spaces, not tabs",
        ),
        ("---\na: 1\n", "campaign.yaml:4: not YAML: but found another document"),
    ],
)
def test_one_problem(tmp_path, extra, line):
    assert problems(tmp_path, GOOD + extra) == [line]


def test_class_declared_twice(tmp_path):
    assert problems(tmp_path, GOOD.replace("[cat]", "[cat, Cat]")) == [
        "campaign.yaml:3: classes: class declared twice: cat; give all its prompts to one class"
    ]


def test_no_class(tmp_path):
    assert problems(tmp_path, GOOD.replace("[cat]", "[]")) == ["campaign.yaml:3: classes: must have at least 1 of them"]


def test_words_that_older_yaml_reads_as_switches_are_texts(tmp_path):
    campaign = load(tmp_path, GOOD.replace("[cat]", "[no, on, 2020-01-01, 12:30]"))
    assert [entry.name for entry in campaign.classes] == ["no", "on", "2020-01-01", "12:30"]


@pytest.mark.parametrize("key", ["aws_secret_access_key", "password", "session_token"])
def test_credentials_are_refused_and_never_repeated(tmp_path, key):
    (line,) = problems(tmp_path, GOOD.replace("source: images", f"source: {{uri: images, s3: {{{key}: hunter2}}}}"))
    assert "environment variables" in line
    assert "hunter2" not in line


def test_user_and_password_of_an_address_are_not_repeated(tmp_path):
    (line,) = problems(tmp_path, GOOD + 'export: {images: "https://me:hunter2@host/x"}\n')
    assert "hunter2" not in line
    assert "https://host/x" in line


def test_file_problems(tmp_path):
    with pytest.raises(CampaignError, match=r"no such file; `vouch init`"):
        load_campaign(tmp_path / "none.yaml")
    with pytest.raises(CampaignError, match="is a folder"):
        load_campaign(tmp_path)
    with pytest.raises(CampaignError, match="it is empty"):
        load(tmp_path, "# nothing\n")
    with pytest.raises(CampaignError, match="must be a section of keys"):
        load(tmp_path, "- a\n")
    with pytest.raises(CampaignError, match="larger than 1 MiB"):
        load(tmp_path, GOOD + "#" * MAX_BYTES)
    (tmp_path / "latin.yaml").write_bytes(b"source: caf\xe9\n")
    with pytest.raises(CampaignError, match="not UTF-8"):
        load_campaign(tmp_path / "latin.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"source: \x00\n")
    with pytest.raises(CampaignError, match="not YAML"):
        load_campaign(tmp_path / "binary.yaml")


def test_bombs(tmp_path):
    layers = "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12))
    with pytest.raises(CampaignError, match="more than 200000 values"):
        load(tmp_path, "a: &a [1, 1, 1, 1]\n" + layers)
    with pytest.raises(CampaignError, match="alias contains itself"):
        load(tmp_path, "a: &a [*a]\n")
    with pytest.raises(CampaignError, match="nested too deeply"):
        load(tmp_path, "[" * 50_000)


def test_aliases_and_merge_keys_share_settings(tmp_path):
    campaign = load(
        tmp_path,
        """\
source: {uri: s3://a/b, s3: &store {region: x, threads: 3}}
workspace: {uri: s3://a/c, s3: {<<: *store, threads: 4}}
classes: [cat]
""",
    )
    assert (campaign.source.s3.region, campaign.source.s3.threads) == ("x", 3)
    assert (campaign.workspace.s3.region, campaign.workspace.s3.threads) == ("x", 4)


def test_local_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "sam.pth").touch()
    monkeypatch.chdir(tmp_path.parent)
    text = GOOD + (
        "models:\n  detector: {checkpoint: ./missing.pth, text_encoder: ~/bert}\n"
        "  segmenter: {checkpoint: weights/sam.pth}\n  scorer: {checkpoint: owner/name, architecture: ViT-B-32}\n"
    )
    models = load(tmp_path, text).models
    assert models.detector.checkpoint == str(tmp_path / "missing.pth")
    assert models.detector.text_encoder == str(Path("~/bert").expanduser())
    assert models.segmenter.checkpoint == str(tmp_path / "weights" / "sam.pth")
    assert models.scorer.checkpoint == "owner/name"
    assert models.scorer.architecture == "ViT-B-32"


@pytest.mark.parametrize("name", ["'  '", r'"a\nb"', r'"\e[31mred"'])
def test_class_names_are_one_line(tmp_path, name):
    found = problems(tmp_path, f"source: images\nworkspace: w\nclasses: [{name}]\n")
    assert found == ["campaign.yaml:3: classes[0]: the name of a class must be one line of text"]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", r'"a\0b"'])
@pytest.mark.parametrize(
    "places",
    ["source: {}\nworkspace: w", "source: s\nworkspace: {}", "source: {{uri: s, manifest: {}}}\nworkspace: w"],
)
def test_paths_that_cannot_be_are_refused(tmp_path, path, places):
    with pytest.raises(UserError, match="is no usable path"):
        load(tmp_path, f"{places.format(path)}\nclasses: [cat]\n")


def test_a_checkpoint_name_longer_than_a_file_name_is_a_name(tmp_path):
    text = f"models: {{detector: {{checkpoint: {'x' * 300}}}}}\n"
    assert load(tmp_path, GOOD + text).models.detector.checkpoint == "x" * 300


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\u2028\u2029")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé 1:#", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_json_reads_as_itself(value):
    tree = parse_yaml(json.dumps(value, ensure_ascii=False))
    assert tree.data == value
    assert not tree.problems


class Quoting(yaml.SafeDumper):
    """Quotes texts like 1e5 and 0o7 too: numbers in YAML 1.2, and none in the YAML 1.1 that PyYAML writes."""


Quoting.add_implicit_resolver(
    "newer number", re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$|0o[0-7]+$"), list("-+.0123456789")
)


@given(plain)
@example(["1e5", "0o7", "-.5E+3", {"a": "0E0"}])
def test_what_pyyaml_writes_reads_as_itself(value):
    assert parse_yaml(yaml.dump(value, Dumper=Quoting, allow_unicode=True)).data == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("007", 7), ("0x1f", 31), ("0o17", 15), ("-.5", -0.5), ("1_000", "1_000"), ("yes", "yes"),
     ("TRUE", True), ("~", None), ('""', ""), ('"1"', "1"), ("!!str 5", "5"), ("=", "=")],
)  # fmt: skip
def test_scalars(text, value):
    assert parse_yaml(f"a: {text}").data == {"a": value}


def test_lines():
    tree = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n")
    assert tree.line(("a",)) == 1
    assert tree.line(("a", "b")) == 2
    assert tree.line(("a", "c", 1)) == 5
    assert tree.line(("a", "c", 1, "d")) == 5
    assert tree.line(("a", "c", 0, "nothing", "there")) == 4


@pytest.mark.parametrize("text", ["!!binary aGk=", "!x 5", "!!set {a}", "!!float x", "!!timestamp 2020-01-01"])
def test_tags_are_problems(text):
    tree = parse_yaml(f"a: {text}")
    assert [path for path, _, _ in tree.problems] == [("a",)]


def test_merge_keeps_own_values_and_lines():
    tree = parse_yaml("base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\na:\n  x: 9\n  <<: [*b, *o]\n")
    assert tree.data["a"] == {"x": 9, "y": 2, "z": 4}
    assert tree.line(("a", "x")) == 4


SECRET = "correct-horse"


@pytest.fixture
def problem(tmp_path):
    def found(review):
        path = tmp_path / "campaign.yaml"
        path.write_text(f"source: ./images\nworkspace: ./workspace\nclasses: [cat]\nreview: {review}\n")
        with pytest.raises(CampaignError) as error:
            load_campaign(path)
        return str(error.value)

    return found


@pytest.mark.parametrize(
    "address",
    ["embedded", "mongodb://host", "mongodb://ann@host:27017/?tls=true", "mongodb+srv://cluster.example.org"],
)
def test_addresses_without_a_password_are_taken(address):
    assert ReviewConfig(database=address).database == address


@pytest.mark.parametrize(
    "address", ["mongodb://ann:{}@host", "mongodb+srv://ann:{}@host/x", "mongodb://ann:{}@one,two"]
)
def test_a_password_is_refused_and_not_repeated(problem, address):
    said = problem(f"{{database: '{address.format(SECRET)}'}}")
    assert (
        "review.database: a password never stands in a campaign: put the whole address into VOUCH_MONGODB_URI" in said
    )
    assert SECRET not in said


@pytest.mark.parametrize(
    ("review", "said"),
    [
        ("{database: 'postgres://host'}", "must be embedded, or an address that begins with mongodb://"),
        ("{batch: 0}", "review.batch: must be at least 1"),
        ("{lease_minutes: 1}", "review.lease_minutes: must be at least 2"),
        ("{second_reviews: 1.5}", "review.second_reviews: must be at most 1"),
        ("{leases: 5}", "review.leases: unknown key"),
    ],
)
def test_what_is_no_setting_is_told(problem, review, said):
    assert said in problem(review)


@pytest.mark.parametrize("written", ["007", "1e3", "0x1F", "1.50", "True"])
def test_advice_to_quote_shows_what_stands_in_the_file(tmp_path, written):
    for key in ("name", "prompts"):
        value = written if key == "name" else f"[{written}]"
        name = "" if key == "name" else ", name: a"
        (problem,) = problems(tmp_path, f"source: a\nworkspace: b\nclasses:\n  - {{{key}: {value}{name}}}\n")
        assert problem.endswith(f'must be a text, not {written}; put it in quotes: "{written}"')
    (problem,) = problems(tmp_path, f"source: a\nworkspace: b\nclasses: [{written}]\n")
    assert problem.endswith(f'a text goes in quotes: "{written}"')


def test_a_quoted_number_is_the_name_that_is_written(tmp_path):
    assert load(tmp_path, 'source: a\nworkspace: b\nclasses: ["007", "1e3"]\n').classes[0].name == "007"


CAFE = "caf\u00e9"


@pytest.mark.parametrize(
    "twin", ["caf\u00e9\u200b", "cafe\u0301", "\u200dcaf\u00e9", "CAFE\u0301", "caf\u00e9\ufe0f", "\ufeffcaf\u00e9"]
)
def test_names_that_look_the_same_are_refused(tmp_path, twin):
    (problem,) = problems(tmp_path, f"source: a\nworkspace: b\nclasses:\n  - caf\u00e9\n  - '{twin}'\n")
    names = f"{CAFE!a} and {twin!a}"
    assert problem.startswith(f"campaign.yaml:3: classes: classes {names} look the same")


def test_names_that_differ_to_a_reader_are_two_classes(tmp_path):
    text = "source: a\nworkspace: b\nclasses: [caf\u00e9, cafe, 'no entry', noentry, \u0130stanbul, istanbul]\n"
    assert len(load(tmp_path, text).classes) == 6
