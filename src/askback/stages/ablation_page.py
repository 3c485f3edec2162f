"""One HTML page of an ablation: what each variant reaches, and which orderings hold.

Takes: the report of `askback ablate`.  Gives: a page without address, script or date: the same numbers, the same bytes.
Never: shows a variant beside another without the paired difference: the pairs differ more than the variants do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from askback import plots, tables
from askback.tables import Table

TEMPLATE = "ablation.html.j2"
MEAN, SINGLE = "mean, with its interval over pairs", "single trainings"

Found = Mapping[str, Any]


def render_ablation(found: Found) -> str:
    """Return the whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("askback"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Both pictures are drawn by plots.py, which escapes what it writes.
    pictures = {"losses": Markup(losses_picture(found)), "claims": Markup(claims_picture(found))}
    page = environment.get_template(TEMPLATE)
    return page.render(found=found, variants=variants_table(found), claims=claims_table(found), pictures=pictures)


def variants_table(found: Found) -> Table:
    """Return what each variant was tuned on and its loss."""
    rows = [
        (name, tables.count(found["rows"][name]), tables.interval(one["nll"], 4), _numbers(one["seeds"].values(), ""))
        for name, one in found["variants"].items()
    ]
    columns = ("Tuned on", "Rows", "Nats per token", "Each training")
    return Table(
        f"Loss on {tables.count(found['n'])} held-out pairs, with 95 % intervals over pairs", columns, tuple(rows)
    )


def claims_table(found: Found) -> Table:
    """Return each ordering with its paired difference."""
    rows = [
        (
            _name(claim),
            claim["verdict"],
            tables.difference(claim, 4),
            tables.p_value(claim["p_value"]),
            _numbers(claim["seeds"], "+"),
        )
        for claim in found["claims"]
    ]
    columns = ("Lower loss", "Shown", "Paired difference", "p", "Each training")
    return Table("Differences in nats per token on the same pairs, with 95 % intervals", columns, tuple(rows))


def losses_picture(found: Found) -> str:
    """Return the loss of each variant."""
    alt = "Held-out loss of each variant with its interval; the figures stand in the table"
    return plots.dots(list(_losses(found)), alt=alt, x_label="nats per token, lower is better")


def claims_picture(found: Found) -> str:
    """Return the paired difference of each ordering beside zero."""
    alt = "Paired difference of each ordering with its interval; the figures stand in the table"
    return plots.dots(list(_differences(found)), alt=alt, x_label="nats per token, first minus second", mark=0.0)


def _losses(found: Found) -> Iterator[plots.Dot]:
    for name, one in found["variants"].items():
        score = one["nll"]
        yield plots.Dot(name, MEAN, score["value"], score["low"], score["high"])
        for value in one["seeds"].values():
            yield plots.Dot(name, SINGLE, value, value, value)


def _differences(found: Found) -> Iterator[plots.Dot]:
    for claim in found["claims"]:
        yield plots.Dot(_name(claim), MEAN, claim["difference"], claim["low"], claim["high"])
        for value in claim["seeds"]:
            yield plots.Dot(_name(claim), SINGLE, value, value, value)


def _name(claim: Found) -> str:
    return f"{claim['better']} < {claim['worse']}"


def _numbers(values: Any, sign: str) -> str:
    return ", ".join(f"{value:{sign}.4f}" for value in values)
