"""Reads a campaign file and refuses it with every problem at once, each on a line."""

from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ValidationError

from schemas.campaign.campaign import Campaign
from schemas.campaign.fields import alternatives, field_at, model_at
from schemas.campaign.paths import resolve_paths
from schemas.campaign.problems import dotted, explain
from schemas.campaign.yaml_tree import Path as YamlPath
from schemas.campaign.yaml_tree import YamlTree, parse_yaml
from schemas.errors import CampaignError

MAX_BYTES: Final = 2**20


def load_campaign(path: Path) -> Campaign:
    """Read and check a campaign file; relative folders and files come back relative to nothing but `/`.

    A section or key without a value stands for its default, so a section whose keys are all commented out is one.

    Args:
        path: The YAML file.

    Returns:
        The campaign, its local folders and files absolute: those of the file are relative to its own folder.

    Raises:
        CampaignError: The file cannot be read, is no YAML, or does not fit; one line a problem, in line order,
            as `campaign.yaml:14: models.detector.batchsize: unknown key; did you mean batch_size?`.
    """
    tree = _parse(path, _read(path))
    if tree.data is None and not tree.problems:
        raise CampaignError(f"{path}: it is empty; `vouch init` writes a campaign to start from")
    problems = [(line, f"{dotted(at)}{words}") for at, line, words in tree.problems]
    data = _without_nulls(tree.data, (), Campaign)
    problems += _switches_for_numbers(data, (), tree)
    campaign = None
    try:
        campaign = Campaign.model_validate(data)
    except ValidationError as error:
        problems += explain(error, tree, Campaign)
    if problems or campaign is None:
        raise CampaignError("\n".join(f"{path}:{line}: {words}" for line, words in sorted(problems)))
    return resolve_paths(campaign, path.absolute().parent)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CampaignError(f"{path}: no such file; `vouch init` writes a campaign to start from") from None
    except IsADirectoryError:
        raise CampaignError(f"{path}: is a folder; name the campaign file in it") from None
    except OSError as error:
        raise CampaignError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if len(raw) > MAX_BYTES:
        raise CampaignError(f"{path}: is larger than 1 MiB; is it a campaign? Name many keys in a manifest file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CampaignError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _parse(path: Path, text: str) -> YamlTree:
    try:
        return parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise CampaignError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise CampaignError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise CampaignError(f"{path}: {error}; write it out plainly") from None


def _without_nulls(value: object, at: YamlPath, root: type[BaseModel]) -> object:
    """Leave out known keys without a value: a nullable field's default is null, any other's is meant."""
    if isinstance(value, list):
        return [_without_nulls(item, (*at, index), root) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    model = model_at(root, at)
    known = model.model_fields if model else {}
    given = {key: item for key, item in value.items() if item is not None or key not in known}
    return {key: _without_nulls(item, (*at, key), root) for key, item in given.items()}


def _switches_for_numbers(value: object, at: YamlPath, tree: YamlTree) -> list[tuple[int, str]]:
    """Refuse `true` for a number, which pydantic would read as 1."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _switches_for_numbers(item, (*at, key), tree)]
    field = field_at(Campaign, at)
    if not isinstance(value, bool) or field is None:
        return []
    kinds = alternatives(field.annotation)
    if bool in kinds or not {int, float} & set(kinds):
        return []
    return [(tree.line(at), f"{dotted(at)}must be a number, not {str(value).lower()}")]
