"""One request over HTTP/1.1: token scope, retry, limits, connections, timeouts, exceptions."""
