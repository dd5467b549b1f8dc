"""Many items: the run, its reader, its jobs, their outcomes and the journal."""
