"""Writes an experiment's report as one HTML file that needs nothing but itself: the page of the console, alone."""

import re
from importlib.resources import files

from thinslice.records import Experiment, Report


def page(experiment: Experiment, report: Report, currency: str) -> str:
    """The page as text: no script, no request; light or dark as the reader's system is.

    Args:
        experiment: What ran.
        report: What it told.
        currency: The tenant's currency.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from thinslice.web import wording
    from thinslice.web.console import effects
    from thinslice.web.evidence import randomized

    web = files("thinslice.web")
    environment = Environment(
        loader=FileSystemLoader(str(web.joinpath("templates"))), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(wording=wording, randomized=randomized)
    template = environment.from_string(files("thinslice.cli").joinpath("experiment_page.html").read_text("utf-8"))
    style = web.joinpath("static", "app.css").read_text("utf-8")
    style = re.sub(r"@font-face \{[^}]*\}", "", style)  # the letters of the system: nothing is fetched
    return template.render(experiment=experiment, report=report, style=style, **effects(experiment, report, currency))
