"""The stack under a stream while its processes are killed: nothing is lost, nothing is doubled, nobody has to help."""

from pathlib import Path

import pytest

from bigdata_assets.settings import Settings
from bigdata_assets_tests.drills import Drill
from bigdata_assets_tests.soak import FEW, Soak

pytestmark = pytest.mark.integration


@pytest.mark.drill
def test_a_soak_is_exact_and_heals_by_itself(settings: Settings, tmp_path: Path, drill: Drill) -> None:
    minutes, rate = drill.pick("minutes", short=3, full=10), drill.pick("reports a second", short=60, full=60)
    for seed in drill.pick("seeds", short=(1,), full=(1, 2, 3)):
        soak = Soak(tmp_path / str(seed), settings, minutes, rate, seed, **FEW)
        try:
            figures = soak.run()
        finally:
            soak.close()
        assert len(soak.kills) >= minutes * 60 / 45, "it was not killed often enough"
        drill.figures |= {f"seed {seed}: {name}": value for name, value in figures.items()}
