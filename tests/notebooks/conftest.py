"""What runs in notebooks' kernels (test_runs.py) is not collected here."""

collect_ignore_glob = ["claims/*", "always/*", "look.py"]
