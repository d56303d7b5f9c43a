"""The same without this package, as any language with ZeroMQ and msgpack can: topic, a zero byte, one msgpack map."""

import msgpack
import numpy as np
import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.connect("tcp://127.0.0.1:5555")
socket.subscribe("tracks/")

while True:
    topic, _, body = socket.recv().partition(b"\0")
    message = msgpack.unpackb(body)
    ids = np.frombuffer(message["ids"], "<i4")
    xy = np.frombuffer(message["xy"], "<f4").reshape(-1, 2)  # image pixels
    visible = np.frombuffer(message["visible"], np.uint8).astype(bool)
    age_ms = (message["published_unix_ns"] - message["captured_unix_ns"]) / 1e6
    for id, (x, y) in zip(ids[visible], xy[visible], strict=True):
        print(f"frame {message['frame_id']} ({age_ms:.0f} ms old): point {id} at {x:.1f}, {y:.1f}")
