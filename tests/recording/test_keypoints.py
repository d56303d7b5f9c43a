"""The table of key points reads as DeepLabCut's do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from online_tapir.errors import ConfigError, PublishError
from online_tapir.recording.keypoints import KeypointTable, columns_of
from online_tapir.recording.steps import TrackedFrame
from online_tapir.records import Frame, Label, Tracks
from online_tapir.testing import make_tracks

pd = pytest.importorskip("pandas", reason="pandas is in the extra [keypoints]")

BLANK = np.zeros((8, 8, 3), np.uint8)


def step(frame_id: int, ids: list[int], labels: dict[int, Label] | None = None) -> TrackedFrame:
    xy = np.array([[10 * id + 0.5, frame_id + 0.5] for id in ids], np.float32).reshape(-1, 2)
    n = len(ids)
    tracks: Tracks = replace(
        make_tracks(frame_id),
        ids=np.array(ids, np.int32),
        xy=xy,
        visible=np.ones(n, bool),
        occlusion=np.full(n, 0.2, np.float32),
        uncertainty=np.full(n, 0.5, np.float32),
        labels=labels or {},
    )
    return TrackedFrame(Frame(frame_id, 0, 0, BLANK), tracks)


def written(path: Path, steps: list[TrackedFrame]) -> Path:
    table = KeypointTable(path)
    for one in steps:
        table.write(one)
    table.close("the run ended")
    return path


STEPS = [step(3, [0, 2], {0: Label("knee")}), step(5, [2], {}), step(6, [2, 4])]


def test_a_csv_is_read_as_a_script_for_deeplabcut_reads_it(tmp_path: Path) -> None:
    found = pd.read_csv(written(tmp_path / "points.csv", STEPS), header=[0, 1, 2], index_col=0)
    assert found.columns.names == ["scorer", "bodyparts", "coords"]
    own = found["online-tapir"]
    assert list(own.columns.levels[0]) == ["knee", "point2", "point4"]
    assert found.index.tolist() == [3, 5, 6]
    assert own["point2"]["x"].tolist() == [20, 20, 20]  # the middle of pixel 20
    assert own["point2"]["y"].tolist() == [3, 5, 6]
    assert own["knee"]["likelihood"].iloc[0] == pytest.approx(0.4)
    assert own["knee"]["x"].isna().tolist() == [False, True, True]


def test_groups_are_individuals(tmp_path: Path) -> None:
    labels = {0: Label("nose", "left mouse"), 1: Label("nose2", "right mouse")}
    path = written(tmp_path / "points.csv", [step(0, [0, 1, 2], labels)])
    found = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    assert found.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert sorted(found["online-tapir"].columns.get_level_values("individuals").unique()) == [
        "left mouse", "right mouse", "single",
    ]  # fmt: skip


def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    one = pd.read_csv(written(tmp_path / "points.csv", STEPS), header=[0, 1, 2], index_col=0)
    other = pd.read_parquet(written(tmp_path / "points.parquet", STEPS))
    assert other.columns.names == one.columns.names
    np.testing.assert_allclose(other.to_numpy(), one.to_numpy(), atol=1e-4)


def test_a_name_that_is_used_again_gets_a_column_of_its_own() -> None:
    columns, _ = columns_of([1, 5], {1: Label("tip"), 5: Label("tip")})
    assert [column[1] for column in columns[::3]] == ["tip", "tip-5"]


def test_what_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.parquet"):
        KeypointTable(tmp_path / "points.h5")
    with pytest.raises(PublishError, match="not a writable folder"):
        KeypointTable(tmp_path / "nowhere" / "points.csv")


def test_a_run_without_frames_leaves_no_file(tmp_path: Path) -> None:
    assert not written(tmp_path / "points.csv", []).exists()
