"""Report section on where the differences to the reference come from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from portfolio_env.evaluation.attribution.attribution import EXPLAINED, HALVES, Attribution
from portfolio_env.evaluation.attribution.sentences import explanations
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.report.inputs import ReportInputs, drawable
from portfolio_env.evaluation.summary import leads, number_text, universe_lines
from portfolio_env.html import Page, bullets, folded, heading, paragraph, table

SHOWN = 6  # strategies
ASSETS = 10  # rows of the table of assets
STYLES = {"growth": "By style", "equal_risk": "By style, at equal volatility"}


def why_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on assets and styles that explain differences, the leads first."""
    if comparison.benchmark not in comparison.solvent:
        return
    equal = comparison.duplicate_of[comparison.benchmark]
    accounts = [
        name
        for name, result in drawable(comparison).items()
        if comparison.duplicate_of[name] != equal and not result.outside
    ]
    ahead = {name: leads(comparison, name) for name in accounts}
    first = [*(name for name in accounts if ahead[name]), *inputs.agents, *accounts]
    names = [name for name in dict.fromkeys(first) if name in accounts][:SHOWN]
    if not names:
        return
    parts = [
        paragraph(
            "Without an asset, the money in it earns what the reference's other assets earn, in "
            "both accounts; the strategies decide nothing anew. An asset explains a lead if less "
            f"than {100 * EXPLAINED:.0f} % of it is left without the asset, a style if it makes up "
            "at least as much. Style accounts are long the third of the assets with the largest "
            "signal and short the third with the smallest, before costs. Intervals follow Newey & "
            "West (1987)."
        )
    ]
    if not any(ahead.values()):
        parts.append(
            paragraph(
                "No strategy is ahead taken alone, so there is no lead to explain; below is what "
                "each difference consists of."
            )
        )
    if lines := universe_lines(comparison):
        parts.append(bullets(lines))
    for place, name in enumerate(names):
        found = comparison.attribution(name)
        sentences = explanations(found, ahead[name])
        content = (bullets(sentences) if sentences else paragraph("")) + table(
            _without_texts(found)
        )
        content += heading("By asset, % a year") + table(_asset_texts(found))
        for measure, title in STYLES.items():
            if found.styles is not None and measure in found.joint:
                content += heading(title) + table(_style_texts(found, measure))
        opened = place == 0 and bool(ahead[name])
        parts.append(heading(name) + content if opened else folded(name, content))
    page.add("Why", *parts)


def _without_texts(found: Attribution) -> pd.DataFrame:
    """Return the difference of all assets, without some, and in random halves."""
    rows = {}
    forms = {"growth": (100, "{:+.1f}", "growth %"), "sharpe": (1, "{:+.2f}", "Sharpe")}
    for measure, (scale, form, title) in forms.items():
        row: Any = found.without.loc[measure]
        text = number_text(form)
        left_out = f"without {row['asset']}" if row["asset"] else ""
        both = f"without {row['asset']} and {row['pair']}" if row["pair"] else ""
        rows[title] = {
            "difference": text(scale * row["all"]),
            "least without one": f"{text(scale * row['low'])} {left_out}".strip(),
            "most without one": text(scale * row["high"]),
            "least without two": f"{text(scale * row['low_pair'])} {both}".strip(),
            f"% of {HALVES} random halves that keep a tenth": number_text("{:.0f}")(
                100 * row["halves"]
            ),
        }
    texts = pd.DataFrame.from_dict(rows, orient="index")
    return texts.loc[:, (texts != "").any()]


def _asset_texts(found: Attribution) -> pd.DataFrame:
    """Return the assets that contribute most to the difference, either way, the largest first."""
    order = found.assets["difference"].sort_values(ascending=False, kind="stable").index
    shown = found.assets.loc[order]
    if len(shown) > 2 * ASSETS:
        shown = pd.concat([shown.iloc[:ASSETS], shown.iloc[-ASSETS:]])
    forms = {
        "weight": ("mean weight %", "{:.1f}"),
        "reference_weight": ("of the reference", "{:.1f}"),
        "growth": ("contribution", "{:+.2f}"),
        "reference_growth": ("to the reference", "{:+.2f}"),
        "difference": ("difference", "{:+.2f}"),
        "growth_without": ("difference without it", "{:+.2f}"),
    }
    return pd.DataFrame(
        {title: (100 * shown[name]).map(number_text(form)) for name, (title, form) in forms.items()}
    )


def _style_texts(found: Attribution, measure: str) -> pd.DataFrame:
    """Return exposures to styles, alone and together, and what they make of the difference."""
    styles, joint = found.styles, found.joint[measure]
    assert styles is not None
    prefix = "" if measure == "growth" else "equal_risk_"
    texts = {"% a year": (100 * styles["mean"]).map(number_text("{:+.1f}"))}
    for title, columns in (
        ("beta alone", ("beta", "low", "high")),
        ("beta of all", ("joint", "joint_low", "joint_high")),
    ):
        numbers = styles[[f"{prefix}{column}" for column in columns]]
        texts[title] = numbers.apply(lambda row: _bounded("{:+.2f}", *row), axis=1)
    texts["% of the difference"] = (100 * styles[f"{prefix}share"]).map(number_text("{:.0f}"))
    left = _bounded("{:+.1f}", *(100 * joint[name] for name in ("alpha", "low", "high")))
    rest = pd.DataFrame({"beta of all": [f"{left} % a year"]}, ["left by all"])
    return pd.concat([pd.DataFrame(texts), rest]).fillna("")


def _bounded(form: str, *numbers: float) -> str:
    middle, low, high = map(form.format, numbers)
    return f"{middle} [{low}, {high}]"
