"""How often release verdicts are wrong, and how soon right, when somebody looks every time.

A simulated world: a look is 500 requests, of which the canary gets a tenth; 200 looks. Ours are set
beside what people use: a z-test at each look, and the default rules of Kayenta, Argo Rollouts and
Flagger. Run `python -m benchmarks.release_verdicts`: it writes `release_verdicts.md` in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from mlops_mini.evidence import eprocesses
from mlops_mini.evidence.eprocesses import Looks

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Rule = Callable[[Looks], Bools]

SEED, N_LOOKS, N_REQUESTS, SHARE, ALPHA = 7, 200, 500, 0.1, 0.05
N_HEALTHY, N_WORSE, N_KAYENTA = 4000, 1000, 400


def simulate(
    rng: np.random.Generator, n_runs: int, stable: Floats, canary: Floats, share: Floats
) -> Looks:
    """Draw the looks of many releases.

    Args:
        rng: Source of chance.
        n_runs: Number of releases.
        stable: Its rate of bad events in each look, shape [n_looks] or [n_runs, n_looks].
        canary: The canary's.
        share: The canary's share of the requests in each look.
    """
    n_canary = rng.binomial(N_REQUESTS, share, size=(n_runs, N_LOOKS))
    n_stable = N_REQUESTS - n_canary
    return Looks(
        n_treatment=n_canary,
        n_control=n_stable,
        bad_treatment=rng.binomial(n_canary, canary),
        bad_control=rng.binomial(n_stable, stable),
    )


def e_process(test: Callable[[Looks], Floats]) -> Rule:
    """Alarm when the e-value reaches 1 / alpha."""
    return lambda looks: test(looks) >= np.log(1 / ALPHA)


def z_test(level: float) -> Rule:
    """Alarm when the z-test on all counts so far rejects, from the second look on."""

    def rule(looks: Looks) -> Bools:
        n_c, n_s, x_c, x_s = _so_far(looks)
        pooled = (x_c + x_s) / (n_c + n_s)
        sd = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(n_c, 1) + 1 / np.maximum(n_s, 1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (x_c / np.maximum(n_c, 1) - x_s / n_s) / sd
        z[:, 0] = 0
        return np.nan_to_num(z) > stats.norm.isf(level)

    return rule


def msprt(tau: float) -> Rule:
    """Alarm by the mixture sequential probability ratio test on all counts so far (Johari)."""

    def rule(looks: Looks) -> Bools:
        n_c, n_s, x_c, x_s = _so_far(looks)
        p = (x_c + x_s + 0.5) / (n_c + n_s + 1)
        n_c, n_s = np.maximum(n_c, 1), np.maximum(n_s, 1)
        variance = p * (1 - p) * (1 / n_c + 1 / n_s)
        difference = x_c / n_c - x_s / n_s
        log_ratio = 0.5 * np.log(variance / (variance + tau**2)) + tau**2 * difference**2 / (
            2 * variance * (variance + tau**2)
        )
        return (log_ratio > np.log(1 / ALPHA)) & (difference > 0)

    return rule


def kayenta(every: int) -> Rule:
    """Alarm as Kayenta's judge: Mann-Whitney on one value per look, at every so many looks."""

    def rule(looks: Looks) -> Bools:
        rng = np.random.default_rng(SEED)
        n_c, x_s = looks.n_treatment, looks.bad_control
        part = rng.hypergeometric(x_s, looks.n_control - x_s, np.minimum(n_c, looks.n_control))
        canary = looks.bad_treatment / np.maximum(n_c, 1)
        stable = part / np.maximum(n_c, 1)
        alarms = np.zeros(n_c.shape, bool)
        for end in range(max(every, 20), N_LOOKS + 1, every):
            alarms[:, end - 1] = kayenta_fails(stable[:, :end], canary[:, :end])
        return alarms

    return rule


def kayenta_fails(control: Floats, experiment: Floats) -> Bools:
    """Judge series of values as Kayenta does: `High` at 98 %, beyond a quarter of the shift.

    Args:
        control: Shape [n_runs, n_values].
        experiment: Shape [n_runs, n_values].
    """
    shift = np.array(
        [np.median(e[:, None] - c[None, :]) for e, c in zip(experiment, control, strict=True)]
    )
    moved = experiment - 0.25 * np.abs(shift)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.mannwhitneyu(
            moved, control, alternative="greater", method="asymptotic", axis=-1
        ).pvalue
    is_higher = experiment.mean(axis=-1) >= control.mean(axis=-1)
    return np.asarray((np.nan_to_num(p, nan=1.0) < stats.norm.sf(2.326)) & is_higher)


def thresholds(limit: float, *, window: int, n_failed: int) -> Rule:
    """Alarm when more than so many windows of canary requests were above a limit.

    `window` counts looks, of about 50 canary requests each. Argo Rollouts fails when more than
    `failureLimit` measurements failed, Flagger when `threshold` checks failed.
    """

    def rule(looks: Looks) -> Bools:
        shape = (len(looks.n_treatment), N_LOOKS // window, window)
        n, x = (
            counts.reshape(shape).sum(axis=-1)
            for counts in (looks.n_treatment, looks.bad_treatment)
        )
        failed = np.cumsum(x / np.maximum(n, 1) > limit, axis=-1) >= n_failed
        return np.repeat(failed, window, axis=-1) & (np.arange(1, N_LOOKS + 1) % window == 0)

    return rule


def cell(alarms: Bools, looks: Looks) -> str:
    """Write the share of releases with an alarm, and the median canary request of the first one."""
    n_seen = np.cumsum(looks.n_treatment, axis=-1)
    first = np.where(
        alarms.any(axis=-1),
        np.take_along_axis(n_seen, alarms.argmax(axis=-1)[:, None], axis=-1)[:, 0],
        np.inf,
    )
    share, median = 100 * alarms.any(axis=-1).mean(), float(np.median(first))
    return f"{share:.1f}" + (f" ({round(median, -1):,.0f})" if np.isfinite(median) else "")


def table(rate: float, ratios: tuple[float, ...], rules: dict[str, Rule]) -> list[str]:
    """Run every rule in a healthy world, in one with an incident, and in worse ones."""
    rng = np.random.default_rng(SEED)
    flat, share = np.full(N_LOOKS, rate), np.full(N_LOOKS, SHARE)
    start = rng.integers(20, 180, size=(N_HEALTHY, 1))
    place = np.arange(N_LOOKS)
    incident = np.where((place >= start) & (place < start + 8), max(0.08, 3 * rate), rate)
    worlds = {
        "healthy": simulate(rng, N_HEALTHY, flat, flat, share),
        "healthy, incident": simulate(rng, N_HEALTHY, incident, incident, share),
        **{f"x{r:g}": simulate(rng, N_WORSE, flat, r * flat, share) for r in ratios},
    }
    lines = [
        f"\n## {100 * rate:g} % bad events\n",
        "| rule | " + " | ".join(worlds) + " |",
        "| --- |" + " ---: |" * len(worlds),
    ]
    for name, rule in rules.items():
        cells = []
        for looks in worlds.values():
            seen = _first(looks, N_KAYENTA) if name.startswith("Kayenta") else looks
            cells.append(cell(rule(seen), seen))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def ramp_table() -> list[str]:
    """Ramp up while the common rate drifts: what pooled counts make of it (Simpson's paradox)."""
    rng = np.random.default_rng(SEED)
    share = np.repeat([0.01, 0.05, 0.25, 0.5], 50)
    rate = np.geomspace(0.005, 0.02, N_LOOKS)
    rules = {
        "z-test at each look": z_test(ALPHA),
        "mSPRT on pooled counts": msprt(0.01),
        "**rate ratio**, share of each look": e_process(eprocesses.rate_ratio),
        "**2x2 blocks**": e_process(eprocesses.two_by_two),
    }
    worlds = {"healthy": 1.0, "x1.5": 1.5, "x2": 2.0}
    drawn = {
        name: simulate(rng, N_HEALTHY if r == 1 else N_WORSE, rate, r * rate, share)
        for name, r in worlds.items()
    }
    return [
        "\n## Ramp 1, 5, 25, 50 % while the common rate rises from .5 to 2 %\n",
        "| rule | " + " | ".join(worlds) + " |",
        "| --- |" + " ---: |" * len(worlds),
        *(
            f"| {name} | " + " | ".join(cell(rule(k), k) for k in drawn.values()) + " |"
            for name, rule in rules.items()
        ),
    ]


def paired_table() -> list[str]:
    """Mirror 50 requests per look, with labels: nobody is exposed."""
    rng = np.random.default_rng(SEED)
    rows = ["\n## Paired shadow: mirrored requests until McNemar's e-process alarms\n"]
    rows += [
        "| only canary, only stable wrong | alarms | median mirrored |",
        "| --- | ---: | ---: |",
    ]
    for only_canary, only_stable in ((0.04, 0.04), (0.05, 0.03), (0.075, 0.025), (0.12, 0.02)):
        n_runs = N_HEALTHY if only_canary == only_stable else N_WORSE
        rest = 1 - only_canary - only_stable
        draws = rng.multinomial(50, [only_canary, only_stable, rest], size=(n_runs, N_LOOKS))
        alarms = eprocesses.mcnemar(draws[..., 0], draws[..., 1]) >= np.log(1 / ALPHA)
        share = 100 * alarms.any(axis=-1).mean()
        first = np.where(alarms.any(axis=-1), alarms.argmax(axis=-1) + 1, np.inf)
        median = 50 * np.median(first)
        shown = f"{median:,.0f}" if np.isfinite(median) else ""
        rows.append(f"| {100 * only_canary:g} %, {100 * only_stable:g} % | {share:.1f} | {shown} |")
    return rows


def promotion_table() -> list[str]:
    """Promote a canary that is as good as the stable, or exactly at the margin of 1.5."""
    rng = np.random.default_rng(SEED)
    rows = ["\n## Promotion: rejecting a ratio of 1.5 or more\n"]
    rows += [
        "| rate, share | promoted if equal | looks | promoted at exactly 1.5 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for rate, weight in ((0.01, 0.1), (0.01, 0.5), (0.1, 0.1), (0.1, 0.5)):
        share, flat = np.full(N_LOOKS, weight), np.full(N_LOOKS, rate)
        passed = {}
        for ratio, n_runs in ((1.0, N_WORSE), (1.5, N_HEALTHY)):
            looks = simulate(rng, n_runs, flat, ratio * flat, share)
            passed[ratio] = eprocesses.not_worse(looks, margin=1.5) >= np.log(1 / ALPHA)
        first = np.where(passed[1.0].any(axis=-1), passed[1.0].argmax(axis=-1) + 1, np.inf)
        rows.append(
            f"| {100 * rate:g} %, {100 * weight:g} % | {100 * passed[1.0].any(axis=-1).mean():.1f} "
            f"| {np.median(first):.0f} | {100 * passed[1.5].any(axis=-1).mean():.1f} |"
        )
    return rows


def main() -> None:
    """Run all worlds and write the table."""
    ours: dict[str, Rule] = {
        "**rate ratio**": e_process(eprocesses.rate_ratio),
        "**2x2 blocks**": e_process(eprocesses.two_by_two),
    }
    z = {
        "z-test at each look": z_test(ALPHA),
        "z-test, Bonferroni": z_test(ALPHA / N_LOOKS),
    }
    one_percent = {
        **z,
        "Kayenta, every 10 looks": kayenta(10),
        "Argo, 8 windows of 1,250, > 2 %, limit 0 (default)": thresholds(
            0.02, window=25, n_failed=1
        ),
        "Argo, the same, limit 3": thresholds(0.02, window=25, n_failed=4),
        "Flagger, 20 windows of 500, > 1 %, threshold 5": thresholds(0.01, window=10, n_failed=5),
        "Flagger, the same, > 2 %": thresholds(0.02, window=10, n_failed=5),
        "mSPRT on pooled counts": msprt(0.01),
        **ours,
    }
    ten_percent = {**z, "Kayenta, every 10 looks": kayenta(10), "mSPRT": msprt(0.02), **ours}
    lines = [
        "# Release verdicts, looked at every time",
        "",
        (
            "Share of simulated releases with an alarm, percent, and in"
            " brackets the median number of canary requests until then. Made by"
            " `python -m benchmarks.release_verdicts`;"
            f" {N_HEALTHY:,} healthy and {N_WORSE:,} worse releases for each cell"
            f" ({N_KAYENTA} for Kayenta), {N_LOOKS} looks of {N_REQUESTS} requests, a tenth of them"
            f" the canary's, level {100 * ALPHA:g} %, seed {SEED}."
        ),
        *table(0.01, (1.5, 2, 5), one_percent),
        *table(0.001, (5, 20), {**z, "Kayenta, every 10 looks": kayenta(10), **ours}),
        *table(0.1, (1.2, 1.5), ten_percent),
        *table(0.3, (1.1, 1.2), ours),
        *ramp_table(),
        *paired_table(),
        *promotion_table(),
    ]
    text = "\n".join(lines) + "\n"
    (Path(__file__).with_suffix(".md")).write_text(text)
    print(text)


def _so_far(looks: Looks) -> tuple[Floats, Floats, Floats, Floats]:
    counts = looks.n_treatment, looks.n_control, looks.bad_treatment, looks.bad_control
    n_c, n_s, x_c, x_s = (np.cumsum(one, axis=-1).astype(float) for one in counts)
    return n_c, n_s, x_c, x_s


def _first(looks: Looks, n_runs: int) -> Looks:
    return Looks(
        n_treatment=looks.n_treatment[:n_runs],
        n_control=looks.n_control[:n_runs],
        bad_treatment=looks.bad_treatment[:n_runs],
        bad_control=looks.bad_control[:n_runs],
    )


if __name__ == "__main__":
    main()
