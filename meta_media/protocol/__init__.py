"""Meta's rules, without I/O: settings, models, requests, responses, error codes, media types, webhooks."""
