"""The page of models lists every setting with its default."""

import inspect
import re
from pathlib import Path

import pytest

from thinslice.models import MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_of_a_model_stands_on_the_page_with_its_default(name):
    section = PAGE.split(f"## `{name}`")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.MULTILINE))
    parameters = inspect.signature(MODELS[name].fit).parameters.values()
    have = {
        each.name: str(each.default) for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "rng"
    }
    assert listed == have
