"""Meta's rules, without I/O: settings, values, requests, responses, error codes, media types, file names, webhooks."""
