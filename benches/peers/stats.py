"""Statistics of studies against SciPy and statsmodels: every number that a result holds, relatively.

`python stats.py` prints the numbers stored in src/study/statistics (tests/numbers.rs, distributions.rs) in a minute; it needs scipy
and statsmodels only.

What neither has is worked out here another way: Fisher's test of larger tables in whole numbers, Bland–Altman's intervals
and standardised differences from their formulas. The bootstrap is checked on the resamples that our side drew.
"""
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import statsmodels.api as sm
from scipy import stats
from scipy.spatial.distance import mahalanobis
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

LIMIT = 1e-9
# The largest samples whose exact distributions both sides count out.
LARGEST_EXACT = 50


def known(values):
    return np.array([v for v in values if v is not None], float)


def pairs(first, second):
    both = [(a, b) for a, b in zip(first, second) if a is not None and b is not None]
    return np.array(both, float).T


def tied(values):
    return len(np.unique(values)) < len(values)


def tested(found, **more):
    return {"result.statistic": found.statistic, "result.p": found.pvalue, **more}


def describe(values, definition="linear"):
    v = known(values)
    q1, median, q3 = np.percentile(v, [25, 50, 75], method=definition)
    return {"n": len(v), "missing": len(values) - len(v), "mean": np.mean(v), "sd": np.std(v, ddof=1), "se": stats.sem(v),
            "median": median, "q1": q1, "q3": q3, "min": v.min(), "max": v.max()}


def mean_interval(values, level=0.95):
    low, high = DescrStatsW(known(values)).tconfint_mean(1 - level)
    return {"result.low": low, "result.high": high}


def anova(*groups):
    groups = [known(g) for g in groups]
    found = stats.f_oneway(*groups)
    names = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    explained = sm.OLS(np.concatenate(groups), (names[:, None] == np.arange(len(groups))).astype(float)).fit()
    again = anova_oneway(groups, use_var="equal")
    return tested(found, **{"result.effects.0.value": explained.rsquared, "result.freedom.0": again.df_num, "result.freedom.1": again.df_denom})


def kruskal_wallis(*groups):
    return tested(stats.kruskal(*map(known, groups)))


def two_means(equal, first, second, level):
    a, b = known(first), known(second)
    found = stats.ttest_ind(a, b, equal_var=equal)
    low, high = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(1 - level, usevar="pooled" if equal else "unequal")
    return tested(found, **{"result.freedom.0": found.df, "result.effects.0.value": a.mean() - b.mean(),
                            "result.effects.0.interval.low": low, "result.effects.0.interval.high": high})


def student_t(first, second, level=0.95):
    return two_means(True, first, second, level)


def welch_t(first, second, level=0.95):
    return two_means(False, first, second, level)


def mann_whitney(first, second):
    a, b = known(first), known(second)
    exact = not tied(np.r_[a, b]) and max(len(a), len(b)) <= LARGEST_EXACT
    found = stats.mannwhitneyu(a, b, method="exact" if exact else "asymptotic")
    return tested(found, **{"result.effects.0.value": found.statistic / len(a) / len(b)})


def paired_t(first, second, level=0.95):
    found = stats.ttest_rel(*pairs(first, second))
    low, high = found.confidence_interval(level)
    return tested(found, **{"result.freedom.0": found.df, "result.effects.0.interval.low": low, "result.effects.0.interval.high": high})


def wilcoxon(first, second):
    a, b = pairs(first, second)
    d = (a - b)[a != b]
    exact = not tied(abs(d)) and len(d) <= LARGEST_EXACT
    return tested(stats.wilcoxon(d, correction=True, method="exact" if exact else "asymptotic"))


def chi_square(counts, correction=False):
    found = stats.chi2_contingency(counts, correction=correction)
    return tested(found, **{"result.freedom.0": found.dof, "result.effects.0.value": stats.contingency.association(np.array(counts), "cramer")})


def chi_square_yates(counts):
    return chi_square(counts, True)


def fisher(counts):
    if np.shape(counts) == (2, 2):
        found = stats.fisher_exact(counts)
        ratio = {"result.effects.0.value": found.statistic} if math.isfinite(found.statistic) else {}
        return {"result.p": found.pvalue, **ratio}
    return {"result.p": fisher_of_whole_numbers(counts)}


def fisher_of_whole_numbers(counts):
    """All tables with these margins, a column at a time; weights are products of multinomial coefficients."""
    counts = np.array(counts)
    # What is left of the rows, and how many partial tables have which weight.
    layer = {tuple(sorted(counts.sum(1).tolist())): Counter({1: 1})}
    for total in counts.sum(0).tolist():
        following = {}
        for rest, weights in layer.items():
            for column in shares(rest, total):
                factor = math.prod(math.comb(sum(column[:i + 1]), column[i]) for i in range(len(column)))
                into = following.setdefault(tuple(sorted(r - x for r, x in zip(rest, column))), Counter())
                for weight, ways in weights.items():
                    into[weight * factor] += ways
        layer = following
    (weights,) = layer.values()
    observed = math.prod(math.comb(sum(c[:i + 1]), c[i]) for c in counts.T.tolist() for i in range(len(c)))
    return float(Fraction(sum(w * k for w, k in weights.items() if w <= observed), sum(w * k for w, k in weights.items())))


def shares(rest, total):
    if len(rest) == 1:
        return [(total,)] if total <= rest[0] else []
    return [(first, *others) for first in range(min(rest[0], total) + 1) for others in shares(rest[1:], total - first)]


def regress(x, y, level=0.95, at=0.0):
    x, y = pairs(x, y)
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    ends = fit.conf_int(1 - level)
    there = fit.get_prediction([[1, at]])
    numbers = {"result.r": stats.linregress(x, y).rvalue, "result.r_squared": fit.rsquared, "result.residual_sd": math.sqrt(fit.mse_resid),
               "result.freedom": fit.df_resid, "at.0": there.predicted_mean[0],
               "at.1.low": there.conf_int(alpha=1 - level)[0][0], "at.1.high": there.conf_int(alpha=1 - level)[0][1]}
    for i, name in enumerate(["intercept", "slope"]):
        numbers |= {f"result.{name}.value": fit.params[i], f"result.{name}.se": fit.bse[i], f"result.{name}.t": fit.tvalues[i],
                    f"result.{name}.p": fit.pvalues[i], f"result.{name}.interval.low": ends[i][0], f"result.{name}.interval.high": ends[i][1]}
    return numbers


def bland_altman(first, second, level=0.95):
    a, b = pairs(first, second)
    d, n = a - b, len(a)
    sd, z, t = d.std(ddof=1), stats.norm.ppf(0.975), stats.t.ppf((1 + level) / 2, n - 1)
    half = t * sd * math.sqrt(1 / n + z * z / (2 * (n - 1)))
    low, high = DescrStatsW(d).tconfint_mean(1 - level)
    lower, upper = d.mean() - z * sd, d.mean() + z * sd
    return {"result.bias": d.mean(), "result.sd": sd, "result.bias_interval.low": low, "result.bias_interval.high": high,
            "result.lower": lower, "result.lower_interval.low": lower - half, "result.lower_interval.high": lower + half,
            "result.upper": upper, "result.upper_interval.low": upper - half, "result.upper_interval.high": upper + half}


def difference(first, second):
    a, b = known(first), known(second)
    return {"result": (a.mean() - b.mean()) / math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)}


def difference_categorical(first, second):
    groups = [[v for v in g if v is not None] for g in (first, second)]
    names = sorted(set(groups[0] + groups[1]))[1:]
    p, q = (np.array([g.count(name) / len(g) for name in names]) for g in groups)
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    return {"result": mahalanobis(p, q, np.linalg.inv(covariance))}


def holm(p):
    adjusted = iter(multipletests(known(p), method="holm")[1])
    return {f"adjusted.{i}": next(adjusted) for i, v in enumerate(p) if v is not None}


def bootstrap(values, distribution, method, level=0.95):
    """SciPy's interval of a mean from resampled means that are given."""
    class Given:
        bootstrap_distribution = np.array(distribution)
    v = known(values)
    found = stats.bootstrap((v,), np.mean, n_resamples=0, bootstrap_result=Given, method=method, confidence_level=level)
    return {"result.value": v.mean(), "result.se": found.standard_error, "result.interval.low": found.confidence_interval.low,
            "result.interval.high": found.confidence_interval.high}


def at(found, path):
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def off(found, numbers):
    """The largest relative difference, and where it is."""
    worst = (0.0, "", 0.0, 0.0)
    for path, theirs in numbers.items():
        try:
            ours = float(at(found, path))
        except (KeyError, TypeError, IndexError):
            return math.inf, path, math.nan, theirs
        difference = abs(ours - theirs) / (abs(theirs) or 1.0)
        worst = max(worst, (difference, path, ours, float(theirs)))
    return worst


def samples():
    """Groups of three sizes: skewed, with ties, with missing values, far from zero, with large effects."""
    rng = np.random.default_rng(20230702)

    def missing(values):
        return [None if rng.random() < 0.06 else float(v) for v in values]

    for n in (6, 40, 2159, 12013):
        base = rng.lognormal(0.7, 1.3, n)
        yield f"n = {n}, skewed", [missing(base * rng.lognormal(0, 0.2, n) + shift) for shift in (0, 0.05, 0.3)]
        yield f"n = {n}, ties", [missing(np.round(rng.normal(5 + shift, 2, n))) for shift in (0, 0, 0.5)]
        yield f"n = {n}, far from 0", [missing(1e3 + rng.normal(shift, 1, n)) for shift in (0, 0.01, 0.02)]
    yield "n = 40, large effect", [missing(rng.normal(shift, 1, 40)) for shift in (0, 8, 20)]


def tables():
    rng = np.random.default_rng(5)
    for shape in ((2, 2), (2, 3), (3, 3), (4, 2), (2, 6)):
        for total in (12, 24, 40):
            counts = rng.multinomial(total, rng.dirichlet(np.full(shape[0] * shape[1], 2.0))).reshape(shape)
            if counts.sum(0).all() and counts.sum(1).all():
                yield counts.tolist(), f"{shape[0]} × {shape[1]}, n = {total}"
    yield [[0, 5], [6, 1]], "2 × 2 with a zero"
    yield [[5400, 3261], [1290, 869]], "2 × 2, n = 10820"


# Test, whether it takes all three groups, two, or one.
NUMERIC = [(anova, 3), (kruskal_wallis, 3), (student_t, 2), (welch_t, 2), (mann_whitney, 2), (paired_t, 2), (wilcoxon, 2),
           (difference, 2), (regress, 2), (bland_altman, 2), (describe, 1), (mean_interval, 1)]


def calls():
    """What is asked of our side, what it is called, and the numbers that it must give (or a function of its answer)."""
    for what, groups in samples():
        for test, n in NUMERIC:
            yield {"test": test.__name__, "values": groups[:n]}, what, test(*groups[:n])
        for definition in ("median_unbiased", "weibull"):
            yield {"test": "describe", "values": groups[:1], "definition": definition}, what, describe(groups[0], definition)
        for level in (0.9, 0.99):
            yield {"test": "regress", "values": groups[:2], "level": level, "x": 3.5}, what, regress(*groups[:2], level, 3.5)
            yield {"test": "welch_t", "values": groups[:2], "level": level}, what, welch_t(*groups[:2], level)
        if "2159" not in what and "12013" not in what:
            for method in ("percentile", "bca"):
                yield ({"test": "bootstrap", "values": groups[:1], "definition": method}, what,
                       lambda found, v=groups[0], m=method: bootstrap(v, found["distribution"], m))
    for counts, what in tables():
        for test in (chi_square, chi_square_yates, fisher):
            if test is not fisher or "0820" not in what:
                yield {"test": test.__name__, "counts": counts}, what, test(counts)
    yield from others()


def others():
    rng = np.random.default_rng(8)
    counts = [[5400, 3261], [1290, 869]]
    yield {"test": "fisher", "counts": counts}, "2 × 2, n = 10820", fisher(counts)
    for n in (1, 5, 30):
        p = [None if i % 7 == 3 else float(v) for i, v in enumerate(rng.random(n) ** 4)]
        yield {"test": "holm", "values": [p]}, f"{n} tests", holm(p)
    for k in (2, 3, 8):
        names = [[None if rng.random() < 0.05 else "abcdefgh"[int(rng.integers(k) * s)] for _ in range(400)] for s in (1, 0.9)]
        yield {"test": "difference_categorical", "names": names}, f"{k} categories", difference_categorical(*names)


def agree(work):
    from work import agreement
    asked = list(calls())
    found = work.run("statistics", parameters={"calls": [call for call, _, _ in asked]}).numbers
    worst = {}
    for (call, what, numbers), answer in zip(asked, found):
        numbers = numbers(answer) if callable(numbers) else numbers
        rows = worst.setdefault(call["test"], [0, (-1.0,), ""])
        rows[0] += 1
        if (difference := off(answer, numbers)) > rows[1]:
            rows[1:] = difference, what
    return [agreement(f"statistics: {test}", RIVALS.get(test, "SciPy"), f"{n} cases; worst: {what}, {path}", difference, LIMIT,
                      "relative", ours, theirs) for test, (n, (difference, path, ours, theirs), what) in worst.items()]


# The values of the tests' stored numbers.
A = [1.2, 0.4, 14.8, None, 3.3, 7.9, 2.2, 30.5, 0.9]
B = [2.1, 5.6, 0.7, 18.2, 9.4, None, 44.0, 6.3, 3.7]
C = [12.5, 3.8, 21.4, 8.8, 16.1, 2.9, 51.3, None, 10.2]
# National Institutes of Health Stroke Scale: ties.
D = [4.0, 2.0, 9.0, 4.0, None, 1.0, 17.0, 4.0, 6.0, 2.0]
E = [3.0, 2.0, 11.0, 6.0, 5.0, 1.0, None, 7.0, 12.0, 4.0]
# Job satisfaction by income (Agresti 2002, Categorical Data Analysis, p. 57), for which R's fisher.test gives 0.7827.
JOBS = [[1, 2, 1, 0], [3, 3, 6, 1], [10, 10, 14, 9], [6, 7, 12, 11]]
VENDORS = ([*"aabbbcaab", None], [*"abccbcca"])


def distributions():
    t, f = [(1e-6, 2158), (2.5, 7.3), (1.5, 1e6), (30, 1e6), (1e5, 3)], [(1e-4, 1, 1e6), (1.5, 3, 12013), (50, 3, 1e6), (1e6, 2, 10), (2, 30, 1)]
    quantiles = [(0.95, 1), (0.95, 2158), (0.95, 1e6), (0.8, 1e6), (0.999, 3), (0.01, 5)]
    return {f"student_two_sided{x}": 2 * stats.t.sf(*x) for x in t} | {f"fisher_upper{x}": stats.f.sf(*x) for x in f} | {
        f"chi_square_upper{x}": stats.chi2.sf(*x) for x in [(1e-4, 1), (9, 3), (300, 50), (1200, 2)]} | {
        f"normal_two_sided({z})": 2 * stats.norm.sf(abs(z)) for z in (0.1, 1.96, 8, -30)} | {
        f"normal_cdf({z})": stats.norm.cdf(z) for z in (-8, -0.3, 0.3, 2)} | {
        f"quantile{x}": stats.t.isf((1 - x[0]) / 2, x[1]) for x in quantiles}


def stored():
    yield "distributions", distributions()
    yield "describe", describe(A)
    yield "describe, median-unbiased", describe(A, "median_unbiased")
    yield "describe, Weibull", describe(A, "weibull")
    yield "mean_interval", mean_interval(A)
    yield "anova", anova(A, B, C)
    yield "kruskal_wallis", kruskal_wallis(A, B, C)
    yield "kruskal_wallis, ties", kruskal_wallis(D, E)
    yield "student_t", student_t(A, C)
    yield "welch_t", welch_t(A, C, 0.9)
    yield "mann_whitney, exact", mann_whitney(A, C)
    yield "mann_whitney, ties", mann_whitney(D, E)
    yield "paired_t", paired_t(A, C)
    yield "wilcoxon, exact", wilcoxon(A, C)
    yield "wilcoxon, ties and zeros", wilcoxon(D, E)
    yield "regress", regress(A, C, 0.95, 10.0)
    yield "bland_altman", bland_altman(A, C)
    yield "chi_square", chi_square([[30, 14, 6], [22, 25, 11]])
    yield "chi_square, Yates", chi_square_yates([[12, 5], [7, 14]])
    yield "fisher", fisher([[8, 2], [1, 5]])
    yield "fisher, 2 × 3", fisher([[5, 1, 0], [2, 3, 4]])
    yield "fisher, 4 × 4", fisher(JOBS)
    yield "difference", difference(A, C)
    yield "difference_categorical", difference_categorical(*VENDORS)
    yield "holm", holm([0.01, 0.04, None, 0.03, 0.005, 0.9, 0.03])


def numbers():
    for name, values in stored():
        print(name)
        for path, value in values.items():
            print(f'    ("{path}", {float(value)!r}),')


RIVALS = {"fisher": "SciPy, integers", "regress": "statsmodels", "holm": "statsmodels", "mean_interval": "statsmodels", "bland_altman": "formula",
          "difference": "formula", "difference_categorical": "formula"}


def speed(work):
    return []


if __name__ == "__main__":
    numbers()
