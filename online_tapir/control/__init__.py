"""Remote control of a live run: the protocol, the server, its commands and the client."""
