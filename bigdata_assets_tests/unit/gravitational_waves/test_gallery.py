import numpy as np
import pandas as pd

from bigdata_assets.gravitational_waves.logic.training.gallery import report


def test_every_class_that_is_there_has_a_row_and_all_are_counted():
    counts = pd.DataFrame(
        {
            "label": ["Blip", "Blip", "Chirp"],
            "sample_type": ["train", "test", "train"],
            "glitches": [3, 1, 2],
            "views": [12, 3, 8],
        }
    )
    pixels = np.full(23_800, 0.2, np.float32)
    images = pd.DataFrame(
        {"label": ["Blip", "Chirp"], "id": ["a", "b"], "view_s": [0.5, 4.0], "pixels": [pixels, pixels]}
    )
    page = report(counts, images)
    assert page.numbers == {"glitches": 6, "spectrograms": 23, "classes": 2, "chirps": 2}
    (table,) = page.tables.values()
    assert table.set_index("label").loc["Blip"].to_dict() == {"train": 3, "validation": 0, "test": 1, "all": 4}
    assert len(table) == 22
    (figure,) = page.figures.values()
    told = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert told == ["no such view"] * 6, "of eight places two have a picture"
    assert set(page.pngs()) == {"Blip to Chirp: one glitch a row, views of 0.5, 1, 2 and 4 s"}
