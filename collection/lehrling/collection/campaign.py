"""Load a campaign: what a data-collection centre wants recorded, from one YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lehrling.collection.campaign_cells import cells_of
from lehrling.collection.campaign_model import Campaign
from lehrling.datasets.documents import explain, read_yaml
from lehrling.datasets.errors import InputError


def load_campaign(path: Path) -> Campaign:
    """Read and check a campaign; its key file's path comes back absolute.

    Raises:
        InputError: the file is missing, has an unknown key or a wrong value, or a quota that cannot be met.
    """
    if not path.is_file():
        raise InputError(f"Expected a campaign (YAML) at {path}, but there is no such file.")
    data = read_yaml(path, "campaign")
    if not isinstance(data, dict):
        raise InputError(f"Expected the keys of a campaign in {path}, got {type(data).__name__}.")
    try:
        campaign = Campaign.model_validate(data)
        cells_of(campaign)
    except ValidationError as error:
        raise InputError(explain(error, str(path), Campaign, "a campaign")) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    key_file = (path.parent / Path(campaign.operators.key_file).expanduser()).resolve()
    operators = campaign.operators.model_copy(update={"key_file": str(key_file)})
    return campaign.model_copy(update={"operators": operators})
