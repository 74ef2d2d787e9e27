"""What holds in notebook 10 on any machine, for any inputs."""

assert cpu.in_use == threads, "the machine is measured with the threads asked for"
assert rates.max() >= cpu.dram_bytes_per_s > 1e8, "caches are at least as fast as memory"
assert len(rows) == len(foretold), "every product is predicted, then timed"
assert (rows["time_us"] > 0).all(), "and took time"
assert (speed > 0).all().all(), "both decoders write"
