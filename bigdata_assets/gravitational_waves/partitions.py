"""The training set by class: Gravity Spy's 22."""

import dagster as dg

from bigdata_assets.gravitational_waves.logic.training_set import CLASSES

GLITCH_CLASSES = dg.StaticPartitionsDefinition(list(CLASSES))
