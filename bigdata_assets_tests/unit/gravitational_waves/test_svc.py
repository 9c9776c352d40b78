import numpy as np
import pandas as pd
import pytest

from bigdata_assets.gravitational_waves.logic.classifiers.chirp_report import judged, threshold
from bigdata_assets.gravitational_waves.logic.classifiers.svc import (
    SvcSettings,
    chosen,
    fold_figures,
    from_parameters,
    parameters,
    views,
)
from bigdata_assets.gravitational_waves.tables import CHIRP_SVC_TUNING


def test_settings_come_back_as_they_were_kept():
    settings = SvcSettings(views_s=(0.5, 4.0), reg_param=0.3, max_iter=7, weighted=False)
    assert from_parameters(parameters(settings)) == settings
    trials = pd.DataFrame([parameters(SvcSettings()) | {"chosen": False}, parameters(settings) | {"chosen": True}])
    assert chosen(trials) == settings


def test_the_table_says_why_one_setting_alone_has_no_figures():
    told = {column.name: column.description for column in CHIRP_SVC_TUNING.columns}
    assert "of one setting alone" in told["folds"]
    assert all("none where folds is 0" in told[column.name] for column in CHIRP_SVC_TUNING.columns if column.nullable)


def test_a_view_that_is_none_is_named():
    assert views("0.5,2.0") == (0.5, 2.0)
    with pytest.raises(ValueError, match=r"no view of \[3.0\] s"):
        views("0.5,3.0")


def test_figures_are_means_over_folds_and_repeats():
    def fold(repeat, number, margins):
        truth = [1, 0, 0, 0]
        return pd.DataFrame({"repeat": repeat, "fold": number, "margin": margins, "is_signal": truth})

    found = fold_figures(
        pd.concat(
            [fold(0, 0, [9, 1, 2, 3]), fold(0, 1, [0, 1, 2, 3]), fold(1, 0, [9, 1, 2, 3]), fold(1, 1, [-1, -9, -8, -7])]
        )
    )
    assert (found["roc_auc"], found["recall"], found["recall_at_0"]) == (0.75, 0.75, 0.5)
    assert found["roc_auc_p5"] == pytest.approx(0.525)


def scored(sample_types, labels, margins):
    ids = [f"g{number}" for number in range(len(margins))]
    return pd.DataFrame({"id": ids, "label": labels, "sample_type": sample_types, "margin": np.array(margins, float)})


def test_a_threshold_is_chosen_on_validation_rows_alone():
    types = ["train", "validation", "validation", "test", "test"]
    labels = ["Blip", "Blip", "Chirp", "Blip", "Chirp"]
    rows = scored(types, labels, [50, 1, 9, 30, 2])
    assert threshold(rows) == 1
    one = judged("m", rows, "v3", 1)
    assert one["is_chirp"].tolist() == [True, False, True, True, True]
    assert set(one["model_version"]) == {"v3"}


def test_training_rows_choose_where_validation_has_chirps_alone():
    rows = scored(["train", "train", "validation", "test"], ["Blip", "Chirp", "Chirp", "Chirp"], [5, 6, 9, 4])
    assert threshold(rows) == 5
