"""Density against a known law, Synthesizer with the words and dtypes of its table, and scikit-learn's checks."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.utils.estimator_checks import check_estimator

from undiffuse.errors import InputError
from undiffuse.estimators import Density, Synthesizer
from undiffuse.random import Purpose, normal

COV = np.array([[2.0, 1.2, -0.4], [1.2, 1.5, 0.3], [-0.4, 0.3, 1.0]])


def gaussian(n: int, draw: int) -> NDArray[np.float64]:
    z = normal(2, Purpose.DATA, draw, 0, n, (3,)).double().numpy()
    return np.asarray(z @ np.linalg.cholesky(COV).T + [1.0, -2.0, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Density, Synthesizer])
def test_they_pass_scikit_learns_checks(kind: type) -> None:
    failed = {check["check_name"]: str(check["exception"]) for check in check_estimator(kind(steps=2), on_fail=None)
              if check["status"] == "failed"}
    assert failed == {}


def test_the_density_of_a_gaussian_is_that_of_its_closed_form() -> None:
    """Its network is a small correction of the exact linear denoiser: mean error below .05 nats, half of it bias."""
    rows = gaussian(60, 1)
    density = Density(steps=50).fit(gaussian(4000, 0))
    exact = stats.multivariate_normal([1.0, -2.0, 0.5], COV).logpdf(rows)
    scores = density.score_samples(rows)
    assert np.abs(scores - exact).mean() < 0.15 and abs(scores.mean() - exact.mean()) < 0.05
    assert density.score(rows) == pytest.approx(scores.mean())


def mixed(n: int) -> pd.DataFrame:
    z = normal(2, Purpose.DATA, 20, 0, n, (3,)).double().numpy()
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta((30 + 10 * z[:, 1]).astype(int), "D")
    return pd.DataFrame({"size": z[:, 0].round(2), "group": pd.Categorical(np.where(z[:, 0] > 0, "large", "small")),
                         "flag": z[:, 0] > 0, "count": np.abs(5 * z[:, 2]).astype(int), "day": day,
                         "town": np.where(z[:, 1] > 0, "New York", "Paris"), "same": 3,
                         "half": (z[:, 0] + z[:, 2]).astype(np.float32)})


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer(steps=60).fit(mixed(200))


def test_a_dataframe_in_is_a_dataframe_out(synthesizer: Synthesizer) -> None:
    """The same columns in the same order, dtypes and words; whole numbers, constants, and the same rows for a seed."""
    table, drawn = mixed(200), synthesizer.sample(300)
    assert list(drawn.columns) == list(table.columns) and (drawn.dtypes == table.dtypes).all()
    assert set(drawn["town"]) == {"New York", "Paris"} and set(drawn["flag"]) == {True, False}
    assert (drawn["same"] == 3).all() and (drawn["count"] >= 0).all()
    assert (drawn["day"] == drawn["day"].dt.normalize()).all()
    assert synthesizer.sample(300).equals(drawn) and not synthesizer.sample(300, random_state=1).equals(drawn)
    error = 4 * np.sqrt(1 / 200 + 1 / 300)
    assert abs((drawn["group"] == "large").mean() - (table["group"] == "large").mean()) < error
    assert abs(drawn["size"].mean() - table["size"].mean()) < error


def test_a_fitted_estimator_is_pickled(synthesizer: Synthesizer) -> None:
    again = pickle.loads(pickle.dumps(synthesizer))
    assert again.sample(5).equals(synthesizer.sample(5))


def test_words_and_gaps_have_a_score_and_an_unknown_word_is_refused() -> None:
    table = mixed(120)[["size", "group", "count"]].astype({"group": object})
    table["count"] %= 3
    table.loc[::7, "size"] = np.nan
    density = Density(steps=10).fit(table)
    scores = density.score_samples(table.head(3))
    assert np.isfinite(scores).all()
    with pytest.raises(InputError, match="'huge', which is not in the training data"):
        density.score_samples(table.head(2).assign(group="huge"))
    with pytest.raises(InputError, match="expected a DataFrame"):
        density.score_samples(np.zeros((2, 3)))
