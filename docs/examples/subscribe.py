"""Prints the visible points of every frame: needs online-tapir, but not torch."""

from online_tapir import subscribe

for tracks in subscribe("tcp://127.0.0.1:5555"):
    print(tracks.frame_id, tracks.ids[tracks.visible], tracks.xy[tracks.visible])
