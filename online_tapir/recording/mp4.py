"""H.264 video in MP4, which browsers and phones play: written in fragments, so that a truncated file still plays.

A fragment is a second of video. After `kill -9` or a power cut, the file plays up to its last whole fragment.
"""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video import VideoStream
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from online_tapir.errors import PublishError

FRAGMENT_S = 1.0
CONTAINER = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",  # to the file at once; what ffmpeg buffers is lost with the process
}
ENCODER = "libx264"
# superfast takes a fifth less CPU time than veryfast at 1920x1080, for files 1.6 times as large.
ENCODING = {"preset": "superfast", "crf": "20"}
BT601 = 6  # H.264's code for the colour matrix; players assume BT.709 for untagged pictures above 576 lines


class Mp4Writer:
    """Writes pictures, RGB uint8 [H, W, 3], all of one size, to a file; replaces an existing one.

    4:2:0 needs even sides: the last row or column of an odd side is repeated. Raises PublishError if the file cannot be
    created; `write` and `close` raise OSError if it can no longer be written.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self._size = (width, height)
        self._pictures = 0
        self._closed = False
        rate = Fraction(fps).limit_denominator(1001)  # 30000/1001, too
        try:
            self._file = av.open(str(path.absolute()), "w", format="mp4", container_options=CONTAINER)
            stream = self._file.add_stream(ENCODER, rate=rate, options=ENCODING)
            assert isinstance(stream, VideoStream)
            self._stream, codec = stream, stream.codec_context
            codec.width, codec.height = width + width % 2, height + height % 2
            codec.pix_fmt = "yuv420p"
            codec.gop_size = max(1, round(FRAGMENT_S * rate))
            codec.max_b_frames = 0
            codec.thread_count = 1  # the tracker wants the other cores
            codec.color_range = ColorRange.MPEG
            codec.colorspace = codec.color_primaries = codec.color_trc = BT601
            self._file.start_encoding()  # creates the file
        except (FFmpegError, ValueError) as error:  # ValueError: no such encoder
            raise PublishError(
                f"cannot write {path} as H.264: {error}; check that its folder exists and is writable, and that "
                f"PyAV was installed as a wheel (`pip install --only-binary av av`), which has {ENCODER}"
            ) from error

    def write(self, rgb: NDArray[np.uint8]) -> None:
        height, width = rgb.shape[:2]
        assert (width, height) == self._size, "every frame of a source has the size of its first"
        if width % 2 or height % 2:
            rgb = np.asarray(cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
        )
        frame.pts = self._pictures
        self._pictures += 1
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what the encoder still holds. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._file.mux(self._stream.encode(None))
        finally:
            self._file.close()
