"""The test of a split beside savvi's, an implementation by other people."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlops_mini.evidence import eprocesses

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".cache" / "environments" / "savvi"
SCRIPT = """
import json, sys
import numpy as np
from savvi.multinomial import Multinomial

looks, share = json.load(sys.stdin)
test = Multinomial(0.001, np.array([share, 1 - share]))
log_odds = []
for look in looks:
    test.update(np.array(look))
    log_odds.append(float(np.log(test.odds)))
print(json.dumps(log_odds))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("true_share", "share"), [(0.25, 0.25), (0.24, 0.25), (0.06, 0.05)])
def test_the_test_of_a_split_agrees_with_savvi(true_share: float, share: float) -> None:
    subprocess.run(
        [sys.executable, ROOT / "tools" / "set_up.py", ENVIRONMENT, "--lock",
         ROOT / "environments" / "savvi.txt"],
        check=True,
    )  # fmt: skip
    treatment = np.random.default_rng(1).binomial(500, true_share, 40)
    looks = np.stack([treatment, 500 - treatment], axis=1).tolist()

    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", SCRIPT],
        input=json.dumps([looks, share]), capture_output=True, text=True, check=True,
    )  # fmt: skip

    ours = eprocesses.sample_ratio(treatment, 500 - treatment, [share] * 40)
    np.testing.assert_allclose(ours, json.loads(done.stdout), atol=1e-9)
