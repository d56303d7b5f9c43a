"""Where tracks go: ZeroMQ, the Rerun viewer, files, metrics, systemd. Import the module you need."""
