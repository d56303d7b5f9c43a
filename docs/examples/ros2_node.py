"""Publishes the tracks of online-tapir to ROS 2, as standard messages; run it where ROS 2 is sourced.

    python ros2_node.py --ros-args -p address:=tcp://127.0.0.1:5555

Topics, for each camera: `tapir/CAMERA/points` (vision_msgs/Detection2DArray: a detection for each visible point, its id
the point's name or number, its centre in image pixels) and `tapir/CAMERA/objects` (the same for groups that are found,
with the size of their box). Stamps are those of the capture. `messages` knows nothing of ROS: it makes plain
dictionaries, which the node turns into messages, so it can be tested without.
"""

import re
import sys
from typing import Any

import numpy as np

from online_tapir import Tracks, subscribe

PointMessage = dict[str, Any]


def stamp(unix_ns: int) -> dict[str, int]:
    """builtin_interfaces/Time."""
    return {"sec": unix_ns // 1_000_000_000, "nanosec": unix_ns % 1_000_000_000}


def messages(tracks: Tracks) -> dict[str, PointMessage]:
    """The messages of one frame by topic, as vision_msgs/Detection2DArray written as dictionaries."""
    header = {"stamp": stamp(tracks.captured_unix_ns), "frame_id": tracks.camera}
    score = (1 - tracks.occlusion) * (1 - tracks.uncertainty)
    points = [
        detection(header, tracks.called(id), (float(x), float(y)), (0.0, 0.0), 0.0, float(certainty))
        for id, (x, y), seen, certainty in zip(tracks.ids.tolist(), tracks.xy, tracks.visible, score, strict=True)
        if seen
    ]
    things = []
    for thing in tracks.objects:
        if thing.box is not None:
            across, down = thing.box[1] - thing.box[0], thing.box[3] - thing.box[0]
            centre, angle = thing.box.mean(axis=0), float(np.arctan2(across[1], across[0]))
            size = float(np.linalg.norm(across)), float(np.linalg.norm(down))
            share = len(thing.following) / max(1, thing.seen)
            things.append(detection(header, thing.name, (float(centre[0]), float(centre[1])), size, angle, share))
    camera = re.sub(r"[^A-Za-z0-9_]", "_", tracks.camera)
    camera = f"camera_{camera}" if camera[:1].isdigit() else camera  # ROS 2 takes no name that begins with a digit
    return {
        f"tapir/{camera}/points": {"header": header, "detections": points},
        f"tapir/{camera}/objects": {"header": header, "detections": things},
    }


def detection(
    header: dict[str, Any],
    name: str,
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
    score: float,
) -> PointMessage:
    """vision_msgs/Detection2D."""
    return {
        "header": header,
        "id": name,
        "bbox": {
            "center": {"position": {"x": centre[0], "y": centre[1]}, "theta": angle},
            "size_x": size[0],
            "size_y": size[1],
        },
        "results": [{"hypothesis": {"class_id": name, "score": score}}],
    }


def main() -> None:
    import rclpy
    from rclpy.node import Node
    from rosidl_runtime_py import set_message_fields
    from vision_msgs.msg import Detection2D as Detection
    from vision_msgs.msg import Detection2DArray, ObjectHypothesisWithPose

    rclpy.init(args=sys.argv)
    node = Node("online_tapir")
    address = node.declare_parameter("address", "tcp://127.0.0.1:5555").value
    publishers: dict[str, Any] = {}
    try:
        for tracks in subscribe(address):
            for topic, values in messages(tracks).items():
                if topic not in publishers:
                    publishers[topic] = node.create_publisher(Detection2DArray, topic, 10)
                message = Detection2DArray()
                set_message_fields(message.header, values["header"])
                for one in values["detections"]:
                    found, guess = Detection(), ObjectHypothesisWithPose()
                    set_message_fields(guess, one["results"][0])
                    set_message_fields(found, {key: value for key, value in one.items() if key != "results"})
                    found.results.append(guess)
                    message.detections.append(found)
                publishers[topic].publish(message)
            if not rclpy.ok():
                break
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
