"""Keeps OpenCV and ffmpeg from writing to the terminal what our errors say better, and addresses with passwords."""

import os

import cv2

FFMPEG_QUIET = "-8"  # AV_LOG_QUIET


def hush() -> None:
    """Silence both for this process. A level that the user set in the environment stands."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", FFMPEG_QUIET)  # ffmpeg can be told in no other way
    if "OPENCV_LOG_LEVEL" in os.environ:
        return
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # either, by OpenCV's version
    set_level(0)
