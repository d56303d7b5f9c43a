"""The format of a recording: its columns stand, what is of another version is refused, what was cut is readable."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from online_tapir.errors import ConfigError
from online_tapir.recording.tables import (
    LEAST_COLUMNS,
    MANIFEST,
    TABLES,
    Manifest,
    Settings,
    Source,
    TableWriter,
    batches,
    read_table,
    table_path,
)

COLUMNS = {
    "frames": "frame_id: int64, captured_ns: int64, captured_unix_ns: int64, width: int32, height: int32, "
    "dropped: int64, unrecorded: int64, crc32: uint32",
    "tracks": "frame_id: int64, captured_ns: int64, captured_unix_ns: int64, id: int32, x: float, y: float, "
    "visible: bool, occlusion: float, uncertainty: float",
    "queries": "id: int32, x: float, y: float, frame_id: int64, answered_frame_id: int64",
    "labels": "frame_id: int64, id: int32, name: string, group: string, color: int32",
}
ROWS = [([i, i], [2.5 * i, 1.0], [0.5, i], [7, 7], [8, 9 + i], ["", "knee"], ["leg", ""]) for i in range(5)]


def write_queries(folder: Path) -> Path:
    table = TableWriter(folder, "queries")
    for row in ROWS:
        table.append(*row)
    table.close()
    return table_path(folder, "queries")


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_version_1_never_change_and_new_ones_come_behind_them(name: str) -> None:
    columns = [f"{field.name}: {field.type}" for field in TABLES[name]]
    assert ", ".join(columns[: LEAST_COLUMNS[name]]) == COLUMNS[name]


def test_a_table_of_the_first_version_is_read_with_nulls_for_what_it_lacks(tmp_path: Path) -> None:
    first = pa.schema(list(TABLES["frames"])[: LEAST_COLUMNS["frames"]])
    row = pa.record_batch([pa.array([7], field.type) for field in first], schema=first)
    with pa.OSFile(str(table_path(tmp_path, "frames")), "wb") as file, pa.ipc.new_stream(file, first) as stream:
        stream.write_batch(row)
    (found,) = read_table(tmp_path, "frames").to_pylist()
    assert (found["crc32"], found["model_frame_id"]) == (7, None)


def test_a_table_is_a_plain_arrow_stream(tmp_path: Path) -> None:
    with pa.ipc.open_stream(str(write_queries(tmp_path))) as stream:
        rows = stream.read_all().to_pylist()
    assert rows[2:4] == [
        {"id": 1, "x": 2.5, "y": 0.5, "frame_id": 7, "answered_frame_id": 8, "name": "", "group": "leg"},
        {"id": 1, "x": 1.0, "y": 1.0, "frame_id": 7, "answered_frame_id": 10, "name": "knee", "group": ""},
    ]


def test_a_table_that_is_cut_anywhere_is_readable_up_to_the_cut(tmp_path: Path) -> None:
    path = write_queries(tmp_path)
    whole, all_batches = path.read_bytes(), list(batches(tmp_path, "queries"))
    assert len(all_batches) == len(ROWS)
    seen = []
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        found = list(batches(tmp_path, "queries"))
        assert found == all_batches[: len(found)]
        seen.append(len(found))
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(ROWS) + 1))


def test_a_row_is_on_its_way_to_the_disk_when_append_returns(tmp_path: Path) -> None:
    table = TableWriter(tmp_path, "queries")
    for count, row in enumerate(ROWS, start=1):
        table.append(*row)
        assert read_table(tmp_path, "queries").num_rows == 2 * count
    table.close()


def test_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    table_path(tmp_path, "queries").symlink_to("/dev/full")
    table = TableWriter(tmp_path, "queries")
    with pytest.raises(OSError, match="No space left"):
        table.append(*ROWS[0])
    with pytest.raises(OSError, match="No space left"):
        table.close()


def test_another_table_under_the_name_is_refused(tmp_path: Path) -> None:
    write_queries(tmp_path).rename(table_path(tmp_path, "frames"))
    with pytest.raises(ConfigError, match="other columns"):
        read_table(tmp_path, "frames")
    with pytest.raises(ConfigError, match=r"no tracks\.arrows"):
        read_table(tmp_path, "tracks")


def test_a_manifest_comes_back_and_what_a_later_program_adds_is_ignored(tmp_path: Path) -> None:
    settings, source = Settings(model="tapir", iterations=2), Source("desk", "a desk", True, 29.97)
    manifest = Manifest(settings, "ffv1", "1.2", source, "tapir", 49, 33, "the run ended", 3)
    manifest.write(tmp_path)
    body = json.loads((tmp_path / MANIFEST).read_text())
    assert (body["format"], body["version"]) == ("online-tapir/recording", 1)
    body["camera"]["serial"] = body["weather"] = "fine"
    (tmp_path / MANIFEST).write_text(json.dumps(body))
    assert Manifest.read(tmp_path) == manifest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is not a recording"),
        ("{", "is not a recording"),
        ("[]", "is not a recording"),
        ('{"format": "other"}', "not of the format"),
        ('{"format": "online-tapir/recording", "version": 2}', "of version 2, this program reads 1"),
        ('{"format": "online-tapir/recording", "version": 1}', "damaged recording"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_reason(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match=told):
        Manifest.read(tmp_path)


def test_another_model_brings_its_own_weights_and_iterations() -> None:
    settings = Settings(weights="mine.pt", iterations=3, dtype="bfloat16", max_points=7)
    assert settings.changed(model=None, threads=2) == Settings(
        weights="mine.pt", iterations=3, dtype="bfloat16", max_points=7, threads=2
    )
    assert settings.changed(model="tapir", iterations=1) == Settings("tapir", None, "bfloat16", 1, max_points=7)
