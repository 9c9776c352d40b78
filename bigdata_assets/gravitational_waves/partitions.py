"""The training set by class: Gravity Spy's 22."""

import dagster as dg

from bigdata_assets.gravitational_waves.logic.training_set import CLASSES

GLITCH_CLASSES = dg.StaticPartitionsDefinition(list(CLASSES))
SKY_EVENTS = dg.DynamicPartitionsDefinition(name="sky_events")
"""`<event>-<detector>`, of the events that a strain file is there for."""
