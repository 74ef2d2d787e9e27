"""Claims run in notebooks' kernels (test_runs.py), not here."""

collect_ignore_glob = ["claims/*", "always/*"]
