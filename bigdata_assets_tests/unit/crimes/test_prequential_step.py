import pandas as pd
import pytest

from bigdata_assets.crimes.prequential_step import end_of_history


@pytest.mark.parametrize(
    ("times", "ends"),
    [
        (["2016-01-05 10:00", "2016-01-01 00:30"], "2016-01-01"),
        (["2016-01-01 00:30", "2015-12-31 23:50", "2016-01-01 01:00"], "2015-12-01"),
        (["1999-03-04 08:00", "2016-01-01 00:30", "2016-01-02 01:00"], "2015-12-01"),
    ],
)
def test_history_ends_before_the_first_reports_whatever_one_of_long_ago_says(times, ends):
    rows = pd.DataFrame({"occurred_at": pd.to_datetime(times).tz_localize("America/Chicago").tz_convert("UTC")})
    assert end_of_history(rows).isoformat() == f"{ends}T00:00:00-06:00"
