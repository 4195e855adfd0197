"""Numbers on the command line of a worker kind, as types for argparse: what cannot be is one line and exit code 2."""

import argparse
import math

# NumPy, Gymnasium, Stable-Baselines3 and ViZDoom take seeds of 32 bits.
MAX_SEED = (1 << 32) - 1


def count(text: str) -> int:
    """A whole number, 0 or more."""
    number = _whole(text)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(f"{text}: give 0 or more, as a whole number")
    return number


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    number = _whole(text)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more, as a whole number")
    return number


def seed(text: str) -> int:
    """A whole number that every generator takes."""
    number = _whole(text)
    if number is None or not 0 <= number <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 to {MAX_SEED}")
    return number


def fraction(text: str) -> float:
    """A number above 0, 1 at most."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0, at most 1")
    return number


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
