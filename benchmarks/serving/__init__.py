"""The server under load, beside the raw forward pass, a naive server and other servers."""
