"""The names of the codecs for recordings, in a module without heavy imports, because the command line lists them."""

from typing import Literal

CodecName = Literal["huffyuv", "mjpeg"]
DEFAULT_CODEC: CodecName = "huffyuv"
