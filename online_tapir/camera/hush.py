"""Silences OpenCV and ffmpeg: our errors say it better, and their logs may contain addresses with passwords."""

import os

import cv2

FFMPEG_QUIET = "-8"  # AV_LOG_QUIET


def hush() -> None:
    """Silences both for this process. Keeps a level that the user set in the environment."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", FFMPEG_QUIET)  # the only way to silence ffmpeg
    if "OPENCV_LOG_LEVEL" in os.environ:
        return
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # depends on the version of OpenCV
    set_level(0)
