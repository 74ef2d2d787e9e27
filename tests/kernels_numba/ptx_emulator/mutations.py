"""Ways to plant a bug in PTX: functions from text to text."""

import re


def replace(pattern, new, which=None):
    """Mutation: replace all matches, or the one with index ``which``."""

    def mutate(ptx):
        matches = list(re.finditer(pattern, ptx, flags=re.DOTALL))
        chosen = matches if which is None else matches[which : which + 1 or None]
        for match in reversed(chosen):
            ptx = ptx[: match.start()] + match.expand(new) + ptx[match.end() :]
        return ptx

    return mutate


def shift_parameter(index, step):
    """Mutation: the kernel believes an integer parameter to be larger by ``step``."""
    return replace(rf"(ld\.param\.u32\s+(%r\d+), \[\w+_param_{index}\];)", rf"\1 add.s32 \2, \2, {step};")


def move_behind(pattern, target):
    """Mutation: the first match of ``pattern`` happens after the next of ``target``."""

    def mutate(ptx):
        moved = re.search(pattern, ptx)
        rest = ptx[: moved.start()] + ptx[moved.end() :]
        place = re.compile(target).search(rest, moved.start()).end()
        return rest[:place] + moved[0] + rest[place:]

    return mutate


def move_before(pattern, target):
    """Mutation: the first match of ``pattern`` happens before the first of ``target``."""

    def mutate(ptx):
        moved = re.search(pattern, ptx)
        rest = ptx[: moved.start()] + ptx[moved.end() :]
        place = re.search(target, rest).start()
        return rest[:place] + moved[0] + rest[place:]

    return mutate
