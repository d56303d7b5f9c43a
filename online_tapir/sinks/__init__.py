"""Where tracks go: the wire's bytes, the ZeroMQ publisher, the Rerun viewer. Import the one you need."""
