# The answer: what the simulated kernel waits for, and what changes it.
assert not why_not, "the A100 stands for itself"
assert waits.index[0] == "instruction-issue", "it waits longest for the instructions of its own warps"
assert slower["single buffer"] > 0.1, "giving up the overlap costs"
assert abs(slower["twice the bandwidth"]) < 0.06, "twice the bandwidth is no finding"
assert 0.9 < deep.time_s / released.time_s < 2, "a shallow tile is no other kernel"
# "Loads run in the background. Where several blocks share an SM": some do.
assert released.grid.resident > 1, "each fills the waits of the others"
# "The encoder deals words out such that the 32 lanes of a warp hit different banks", and the emulator counts the same.
assert steps <= ordered < 1.5 * steps < unordered, "reordering avoids most conflicts"
assert counted == ordered, "as the encoder promised"
assert abs(moved.mma_flops / 2 / (256 * 192 * 8) - 1) < 1e-9, "one multiply-add for every weight and token"
# "With many weights left the kernel waits for its scatter and for memory", the emptier the less.
full, empty = (swept[level, "as released"] for level in (0.5, 0.9))
assert full.time_s > 1.5 * empty.time_s, "fewer weights take less time"
most = ("dram", "instruction-issue", "shared-memory")
assert sum(full.waits[w] * full.time_s for w in most) > sum(empty.waits[w] * empty.time_s for w in most), (
    "less of these"
)
# "One bar can be checked": simulator and closed form agree on the kernel, and on what reordering is worth in sign.
assert abs(timed["flash-llm"] / released.time_s - 1) < 0.05, "the same product by both"
assert 0.15 < slower["no reordering"] < by_form, "a store whose banks collide holds its warp"
assert (machine_code["spill_bytes"] == 0).all(), "nothing spills"
assert (machine_code["blocks_per_sm"] >= 1).all(), "every architecture holds a block"
assert 0.5 < ours_us / theirs_us < 2, "our kernel is of the same size"
# Exercises
depths = {depth: simulate(*case, what_if=WhatIf(tile_k=depth)).time_s for depth in (16, 32, 64, 128)}
assert min(depths, key=depths.get) == 64, "64 as released is the fastest"
assert simulate(*case, what_if=WhatIf(tile_k=128)).grid.resident == 1, "of the deepest only one block fits an SM"
assert 3 < unordered / steps < 3.7, "a little less than three and a half"
