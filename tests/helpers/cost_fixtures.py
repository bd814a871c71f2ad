"""Exact numbers for costs, in rational arithmetic, and how to read them."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

FIXTURES = json.loads((Path(__file__).parent / "cost_fixtures.json").read_text())


def number(text: str) -> float:
    return float(Fraction(text))


def numbers(texts: list[str]) -> np.ndarray:
    return np.array([number(text) for text in texts])
