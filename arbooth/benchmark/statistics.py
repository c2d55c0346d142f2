"""Means over subjects with their bootstrap intervals."""

from __future__ import annotations

import numpy as np

DRAWS = 2000
# Metric -> a value for every picture, of one subject.
Values = dict[str, list[float]]


def summed(scores: dict[str, Values]) -> dict[str, dict]:
    """Mean over subjects with its 95% interval, and each subject's own mean, for every metric."""
    metrics = dict.fromkeys(metric for values in scores.values() for metric in values)
    table = {}
    for metric in metrics:
        measured = {subject: values[metric] for subject, values in scores.items() if metric in values}
        mean, low, high = interval(list(measured.values()))
        subjects = {subject: round(float(np.mean(v)), 4) for subject, v in measured.items()}
        table[metric] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "subjects": subjects}
    return table


def interval(values: list[list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over subjects of the mean over their pictures, with its 95% bootstrap interval.

    Subjects are what is drawn with replacement: their means carry the noise of prompts and seeds along.
    """
    means = np.array([np.mean(pictures) for pictures in values])
    low, high = np.quantile(means[draws(len(means), seed)].mean(1), (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


def draws(count: int, seed: int = 0) -> np.ndarray:
    """Which subjects each of the bootstrap's samples holds: [DRAWS, count]."""
    return np.random.default_rng(seed).integers(0, count, (DRAWS, count))
