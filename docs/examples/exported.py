"""Tracks points through a video with an exported model; needs onnxruntime, OpenCV and numpy, but no torch.

online-tapir export small DIR; python exported.py DIR video.mp4 120,80 300,200
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

folder, video = Path(sys.argv[1]), cv2.VideoCapture(sys.argv[2])
xy = np.array([pair.split(",") for pair in sys.argv[3:]], np.float32)  # image pixels
manifest = json.loads((folder / "manifest.json").read_text())
encoder, query, step = (onnxruntime.InferenceSession(folder / file) for file in manifest["graphs"].values())
height, width = manifest["input"]["height"], manifest["input"]["width"]
shapes = manifest["tensors"]["step"]
state = {name: np.zeros(shape, np.float32) for name, shape in shapes["inputs"].items() if "level" not in name}
state["previous_xy"][:] = np.nan
changed = [name.removeprefix("next.") for name in list(shapes["outputs"])[1:]]
number = 0
while (grabbed := video.read())[0]:
    rgb = cv2.cvtColor(grabbed[1], cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1
    shrink = np.array([width / rgb.shape[1], height / rgb.shape[0]], np.float32)
    levels = encoder.run(None, {"image": cv2.resize(rgb, (width, height)).transpose(2, 0, 1)[None]})
    grids = {f"level{index}": level for index, level in enumerate(levels)}
    if number == 0:  # points begin here; a slot can begin on any frame in the same way
        slots = np.zeros((manifest["points"], 2), np.float32)
        slots[: len(xy)] = xy * shrink
        match, refine, features = query.run(None, {"xy": slots, **grids})
        begun = {"recent.match": match[None], "recent.refine": features[:, None], "recent.xy": slots[None]}
        state |= {"match_queries": match, "refine_queries": refine}
        state |= {name: value for name, value in begun.items() if name in state}
    estimates, *following = step.run(None, {**grids, **state})
    state |= dict(zip(changed, following, strict=True))
    hidden, wrong = 1 / (1 + np.exp(-estimates[:, 2:].T))
    visible = (1 - hidden) * (1 - wrong) > manifest["visible_above"]
    for place, seen in zip(estimates[: len(xy), :2] / shrink, visible, strict=False):
        print(number, *place.round(3), "visible" if seen else "hidden")
    number += 1
