"""The rule that makes a verdict of a claim. It was written before the results were seen.

A claim has comparisons, each a number for every seed, signed so that positive is what the claim says. A
comparison *holds* if the 95 % t-interval of its mean over seeds lies above 0, and is *opposite* if it
lies below. The claim

- "holds" if all its comparisons hold;
- "holds in part" if at least a quarter of them hold, and more than are opposite;
- is "not seen" otherwise.

With a single seed there is no interval, and so "no verdict".
"""

import numpy as np
import pandas as pd
from scipy.stats import t as student

from paper._results import Results

__all__ = ["compare", "judge", "verdict"]

_COLUMNS = ["claim", "task", "comparison", "seeds", "mean", "low", "high"]


def verdict(holds, opposite, judged):
    """Return the verdict on a claim.

    Parameters
    ----------
    holds, opposite, judged : sequence of bool
        Of each comparison: whether its interval is above 0, below 0, and whether it has one.
    """
    holds, opposite, judged = np.array(holds), np.array(opposite), np.array(judged)
    if not judged.any():
        return "no verdict"
    if holds.all():
        return "holds"
    if holds.mean() >= 0.25 and holds.sum() > opposite.sum():
        return "holds in part"
    return "not seen"


def compare(values):
    """Return n, mean, and bounds of the 95 % t-interval over seeds; NaN seeds have no say."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n, mean = len(values), values.mean() if len(values) else np.nan
    half = np.nan
    if n > 1:
        half = student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return {"seeds": n, "mean": mean, "low": mean - half, "high": mean + half}


def judge(tables, claims):
    """Return the verdicts on claims, and the comparisons behind them, as two frames."""
    results, verdicts, comparisons = Results(tables), [], []
    for claim in claims:
        rows = [
            {"claim": claim.key, "task": task, "comparison": label, **compare(values)}
            for task in results.tasks
            for label, values in claim.comparisons(results, task)
        ]
        own = pd.DataFrame(rows, columns=_COLUMNS)
        holds, opposite, judged = own["low"] > 0, own["high"] < 0, own["low"].notna()
        comparisons.append(own.assign(holds=holds, opposite=opposite))
        verdicts.append(
            {
                "claim": claim.key,
                "comparisons": len(own),
                "hold": int(holds.sum()),
                "opposite": int(opposite.sum()),
                "verdict": verdict(holds, opposite, judged),
            }
        )
    return pd.DataFrame(verdicts), pd.concat(comparisons, ignore_index=True)
