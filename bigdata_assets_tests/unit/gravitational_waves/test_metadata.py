import pytest

from bigdata_assets.gravitational_waves.logic.training.metadata import COLUMNS, FILE, MetadataError, read

GOOD = {"gravityspy_id": "abc", "label": "Chirp", "sample_type": "train", "snr": "12.5", "peak_time": "1126259462"}


def write(folder, *rows, columns=tuple(COLUMNS)):
    lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in rows)]
    (folder / FILE).write_text("\n".join(lines) + "\n")
    return folder / FILE


def test_columns_are_typed_and_blanks_are_unknown(tmp_path):
    table, refused = read(write(tmp_path, GOOD))
    (row,) = table.to_pylist()
    assert (row["snr"], row["peak_time"], row["duration"], row["ifo"]) == (12.5, 1126259462, None, None)
    assert {name: field.type for name, field in zip(table.column_names, table.schema, strict=True)} == COLUMNS
    assert refused.num_rows == 0


def test_what_does_not_fit_is_refused_with_its_row(tmp_path):
    bad = [
        GOOD | {"gravityspy_id": "b", "snr": "loud"},
        GOOD | {"gravityspy_id": "c", "peak_time": "1.5"},
        GOOD | {"gravityspy_id": "d", "peak_time": "9" * 400},
        GOOD | {"gravityspy_id": ""},
        GOOD,
        GOOD | {"gravityspy_id": "e", "label": ""},
    ]
    table, refused = read(write(tmp_path, GOOD, *bad))
    assert table["gravityspy_id"].to_pylist() == ["abc"]
    assert dict(zip(refused["row"].to_pylist(), refused["reason"].to_pylist(), strict=True)) == {
        2: "snr is no number",
        3: "peak_time is no whole number",
        4: "peak_time is no whole number",
        5: "gravityspy_id is missing",
        6: "gravityspy_id was there before",
        7: "label is missing",
    }
    assert "loud" in refused["raw"][0].as_py()


def test_a_line_with_too_many_or_too_few_cells_costs_itself_alone(tmp_path):
    path = write(tmp_path, GOOD, GOOD | {"gravityspy_id": "b"}, GOOD | {"gravityspy_id": "c"})
    header, first, second, third = path.read_text().splitlines()
    path.write_text("\n".join([header, first + ",more", second, "", third.rpartition(",")[0]]) + "\n")
    table, refused = read(path)
    assert table["gravityspy_id"].to_pylist() == ["b"]
    assert refused["row"].to_pylist() == [1, 3]
    assert set(refused["reason"].to_pylist()) == {"not 28 cells"}
    assert refused["raw"][0].as_py().endswith(",more")


def test_a_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(MetadataError, match="lacks the columns snr"):
        read(write(tmp_path, GOOD, columns=[name for name in COLUMNS if name != "snr"]))
    with pytest.raises(MetadataError, match="cannot be read"):
        read(tmp_path / "absent.csv")
