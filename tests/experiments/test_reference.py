import re
from pathlib import Path

import msgspec

from thinslice.cli.experiment import analyze
from thinslice.metrics import DEFAULT_METRICS, METRICS, UNIT_COLUMNS
from thinslice.records import Experiment

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows(page):
    cells = [line.strip("| ").split(" | ") for line in (REFERENCE / page).read_text().splitlines() if line[:3] == "| `"]
    return {row[0].strip("`"): row[1] for row in cells}


def test_the_page_of_metrics_holds_every_column_and_built_in_metric():
    made = {
        name: f"`{of.numerator}`" + (f" / `{of.denominator}`" if of.denominator else "") for name, of in METRICS.items()
    }
    assert rows("metrics.md") == {**UNIT_COLUMNS, **made}


def test_the_page_of_metrics_names_the_default_ones():
    text = (REFERENCE / "metrics.md").read_text()
    assert all(f"`{metric.name}`" in text for metric in DEFAULT_METRICS)
    assert DEFAULT_METRICS[-1].margin == 0.05


def test_the_page_of_experiments_holds_every_field_and_option():
    text = (REFERENCE / "experiments.md").read_text()
    for field in msgspec.structs.fields(Experiment):
        assert f"`{field.name}`" in text
    options = {name for option in analyze.params for name in option.opts if name.startswith("--")} - {"--json"}
    assert options == set(re.findall(r"--[a-z][\w-]*", text))
