"""Reference numbers of calibration, decision curves and paired tests, from scikit-learn, scipy and statsmodels.

Reads the labels and scores of the case `metrics_binary`; writes `metrics_calibration/manifest.json`.
`pip install scikit-learn==1.9.1 scipy==1.17.1 statsmodels==0.15.0 safetensors numpy`, then run this file.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
import statsmodels
import statsmodels.api as sm
from safetensors.numpy import load_file
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, false_discovery_control
from sklearn.isotonic import IsotonicRegression
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

ROOT = Path(__file__).resolve().parent.parent
PREVALENCES = [0.01, 0.1, 0.5]


def logit(p):
    return np.log(p) - np.log1p(-p)


def calibration(labels, scores):
    z = logit(scores)
    fit = sm.Logit(labels, sm.add_constant(z)).fit(disp=0, tol=1e-14, maxiter=200)
    large = sm.GLM(labels, np.ones_like(z), offset=z, family=sm.families.Binomial()).fit(tol=1e-14)

    def loss(inverse):
        return np.logaddexp(0, -np.where(labels == 1, 1, -1) * z * inverse).mean()

    best = minimize_scalar(loss, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-13, "maxiter": 2000})
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    at = np.linspace(0, 1, 21)
    return {
        "intercept": fit.params[0],
        "slope": fit.params[1],
        "in_the_large": large.params[0],
        "temperature": 1 / best.x,
        "log_loss_after": loss(best.x),
        "isotonic_at": at.tolist(),
        "isotonic": isotonic.predict(at).tolist(),
    }


def net_benefit(labels, scores, thresholds):
    n = len(labels)
    rows = []
    for t in thresholds:
        called = scores >= t
        weight = t / (1 - t)
        true, false = (called & (labels == 1)).sum() / n, (called & (labels == 0)).sum() / n
        everyone = labels.mean() - (1 - labels.mean()) * weight
        rows.append({"threshold": t, "model": true - false * weight, "all": everyone})
    return rows


def predictive(labels, scores, threshold):
    called = scores >= threshold
    sensitivity = called[labels == 1].mean()
    specificity = (~called[labels == 0]).mean()
    rows = []
    for p in PREVALENCES:
        rows.append(
            {
                "prevalence": p,
                "ppv": sensitivity * p / (sensitivity * p + (1 - specificity) * (1 - p)),
                "npv": specificity * (1 - p) / (specificity * (1 - p) + (1 - sensitivity) * p),
            }
        )
    return {
        "threshold": threshold,
        "positive_likelihood_ratio": sensitivity / (1 - specificity),
        "negative_likelihood_ratio": (1 - sensitivity) / specificity,
        "at": rows,
    }


def main():
    tensors = load_file(ROOT / "metrics_binary" / "tensors.safetensors")
    results = {}
    for name in ["plain", "rare"]:
        labels = tensors[f"{name}/labels"].astype(int)
        scores = tensors[f"{name}/scores"].astype(np.float64)
        results[name] = {
            "calibration": calibration(labels, scores),
            "decision_curve": net_benefit(labels, scores, [0.05, 0.1, 0.25, 0.5, 0.75]),
            "predictive": predictive(labels, scores, 0.4),
        }
    tables = [[0, 0], [1, 5], [12, 3], [40, 61], [7, 7]]
    results["mcnemar"] = []
    for b, c in tables:
        exact = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
        large = mcnemar([[10, b], [c, 10]], exact=False, correction=True).pvalue if b + c else 1.0
        assert b + c == 0 or abs(exact - binomtest(b, b + c).pvalue) < 1e-12
        results["mcnemar"].append({"b": b, "c": c, "exact": float(exact), "continuity_corrected": float(large)})
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.5, 0.9]
    results["multiple"] = {
        "p": p,
        "holm": multipletests(p, method="holm")[1].tolist(),
        "benjamini_hochberg": false_discovery_control(p).tolist(),
    }
    manifest = {
        "case": "metrics_calibration",
        "software": {"sklearn": sklearn.__version__, "statsmodels": statsmodels.__version__, "numpy": np.__version__},
        "data": "labels and scores of metrics_binary, as f64",
        "results": results,
    }
    (ROOT / "metrics_calibration" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
