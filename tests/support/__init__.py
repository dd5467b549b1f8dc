"""What several rooms of tests share: a scripted server, a server of Redis, faults of the disk, cancellation at every step."""
