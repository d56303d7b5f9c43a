"""How far each point of a recording moved while it was visible: `python analyse_recording.py RUN`."""

import sys
from pathlib import Path

import numpy as np

from online_tapir.recording.tables import read_table

tracks = read_table(Path(sys.argv[1]), "tracks")  # a pyarrow table, whole or cut short; .to_pandas() works, too
ids, visible = tracks["id"].to_numpy(), tracks["visible"].to_numpy(zero_copy_only=False)
xy = np.stack([tracks["x"].to_numpy(), tracks["y"].to_numpy()], axis=1)  # image pixels

for id in np.unique(ids):
    seen = (ids == id) & visible
    steps = np.linalg.norm(np.diff(xy[seen], axis=0), axis=1)
    print(f"point {id}: {steps.sum():.1f} px over {seen.sum()} visible frames")
