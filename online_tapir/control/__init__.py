"""Other programs' hold on a live run: requests and replies, the socket that serves them, what they do, the client."""
