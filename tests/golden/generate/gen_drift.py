"""Reference numbers of the drift comparison: scipy's Kolmogorov-Smirnov distance with its exact p, chi-squared, and the
population stability index written out in NumPy. Values are small formulas, kept in the file."""

import json
from pathlib import Path

import numpy as np
import scipy
from scipy import stats


def noise(n, k):
    i = np.arange(n, dtype=np.uint64)
    return ((i * np.uint64(2654435761) + np.uint64(k * 40503)) % np.uint64(1 << 32)).astype(np.float64) / 2.0**32


def psi(reference, batch, bins=10):
    ordered = np.sort(reference)
    edges = [ordered[max(-(-(i * len(ordered)) // bins) - 1, 0)] for i in range(1, bins)]
    edges = np.unique(edges)
    if edges[-1] == ordered[-1]:
        edges = edges[:-1]
    counts = [np.bincount(np.searchsorted(edges, side, side="left"), minlength=len(edges) + 1) for side in (reference, batch)]
    return psi_of_counts(*counts)


def psi_of_counts(reference, batch):
    p, q = [(c + 0.5) / (c.sum() + 0.5 * len(c)) for c in (np.asarray(reference), np.asarray(batch))]
    return float(((q - p) * np.log(q / p)).sum())


def number_case(reference, batch):
    test = stats.ks_2samp(reference, batch, method="exact")
    return {
        "reference": reference.tolist(),
        "batch": batch.tolist(),
        "distance": float(test.statistic),
        "p_exact": float(test.pvalue),
        "psi": psi(reference, batch),
        "quartiles": [np.quantile(side, [0.25, 0.5, 0.75]).tolist() for side in (reference, batch)],
    }


def main():
    alike = number_case(noise(60, 1), noise(40, 2) * 0.999)
    shifted = number_case(noise(60, 1), 0.25 + 0.9 * noise(40, 2))
    tied = number_case(np.floor(noise(60, 3) * 5), np.floor(noise(40, 4) * 6))
    counts = [[30, 12, 8, 0], [14, 15, 6, 5]]
    table = np.array(counts)
    chi = stats.chi2_contingency(table, correction=False)
    results = {
        "alike": alike,
        "shifted": shifted,
        "tied": tied,
        "codes": {"counts": counts, "chi_squared": float(chi.statistic), "psi": psi_of_counts(*counts)},
    }
    out = Path(__file__).parents[1] / "metrics_drift"
    out.mkdir(exist_ok=True)
    manifest = {"numpy": np.__version__, "scipy": scipy.__version__, "results": results}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


main()
