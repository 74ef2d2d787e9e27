"""One PTX instruction per function, for use inside Numba-CUDA kernels.

Which machine instructions does Numba not offer, and how do kernels reach them? Tensor Cores, ``ldmatrix``,
``cp.async`` and cache hints exist only as PTX; each line below wraps one instruction as an LLVM inline-assembly call.

Conventions: a shared-memory address is a 32-bit integer (the shared window), a global address a 64-bit integer, a
fragment a tuple of scalars, so that nothing lives in an array the compiler would have to promote to registers.
Half-precision values travel as bits: one in the low 16 bits of a 32-bit register, or two per register.

References
----------
NVIDIA, "Parallel Thread Execution ISA", version 9.0, sections on mma, ldmatrix, cp.async, ld and st.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

# Constraint letter of LLVM inline assembly -> (LLVM type, Numba type).
_OPERANDS = {
    "r": (ir.IntType(32), types.uint32),
    "l": (ir.IntType(64), types.int64),
    "f": (ir.FloatType(), types.float32),
}


def _result_types(outputs: str) -> tuple[Any, Any]:
    """LLVM and Numba return type of an instruction with these output letters."""
    if not outputs:
        return ir.VoidType(), types.void
    if len(outputs) == 1:
        return _OPERANDS[outputs]
    llvm, element = _OPERANDS[outputs[0]]
    return ir.LiteralStructType([llvm] * len(outputs)), types.UniTuple(element, len(outputs))


def _instruction(text: str, outputs: str = "", inputs: str = "", *, memory: bool = True) -> Any:
    """Numba intrinsic that emits ``text``.

    Parameters
    ----------
    text : str
        PTX with operands ``$0, $1, ...``: outputs first, then inputs.
    outputs, inputs : str
        One letter per operand: ``r`` 32-bit integer, ``l`` 64-bit integer, ``f`` float32.
    memory : bool
        Whether the instruction touches memory or orders it, so that the compiler may neither move nor drop it.
    """
    llvm_result, result = _result_types(outputs)
    llvm_inputs = [_OPERANDS[letter][0] for letter in inputs]
    constraints = ",".join(["=" + letter for letter in outputs] + list(inputs) + ["~{memory}"] * memory)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(llvm_result, llvm_inputs)
        assembly = ir.InlineAsm(function, text, constraints, side_effect=memory)
        # Convergent: the optimiser must not move a warp-wide instruction into a divergent branch.
        value = builder.call(assembly, arguments, attrs=("convergent",) if ".sync" in text else ())
        if not outputs:
            return context.get_dummy_value()
        if len(outputs) == 1:
            return value
        parts = [builder.extract_value(value, i) for i in range(len(outputs))]
        return context.make_tuple(builder, signature.return_type, parts)

    def typed(_context: Any, *arguments: Any) -> Any:
        if len(arguments) != len(inputs):
            return None
        return result(*(_OPERANDS[letter][1] for letter in inputs)), emit

    # Numba reads the parameter list off the function, so one with the right number of parameters is made here.
    names = "".join(f", a{i}" for i in range(len(inputs)))
    return intrinsic(eval(f"lambda context{names}: typed(context{names})", {"typed": typed}))


@intrinsic
def dynamic_shared(_context: Any) -> Any:
    """Address of the block's dynamic shared memory in the 32-bit shared window, 128-byte aligned."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = "dynamic_shared_memory"
        symbol = builder.module.globals.get(name)
        if symbol is None:
            symbol = ir.GlobalVariable(builder.module, ir.ArrayType(ir.IntType(8), 0), name, addrspace=3)
            symbol.linkage, symbol.align = "external", 128
        return builder.ptrtoint(symbol, ir.IntType(32))

    return types.uint32(), emit


# Tensor Core: D[16,8] = A[16,16] @ B[16,8] + C, fp16 inputs, fp32 accumulators; arguments a0..a3, b0, b1, c0..c3.
mma_m16n8k16 = _instruction(
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
    "ffff",
    "rrrrrrffff",
    memory=False,
)
# Sparse Tensor Core: D[16,8] = A[16,32] @ B[32,8] + C, A of 2:4 sparsity: a0..a3, b0..b3, c0..c3, and the metadata of
# lanes 4 g and 4 g + 1. Ordered metadata is what newer GPUs run at full speed.
mma_sp_m16n8k32 = _instruction(
    "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 "
    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9,$10,$11}, {$12,$13,$14,$15}, $16, 0;",
    "ffff",
    "rrrrrrrrffffr",
    memory=False,
)
# Shared memory -> fragments: four (or two) 8 x 8 matrices of fp16; lane i gives the address of row i.
ldmatrix_x4 = _instruction("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];", "rrrr", "r")
ldmatrix_x4_trans = _instruction("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0,$1,$2,$3}, [$4];", "rrrr", "r")
ldmatrix_x2_trans = _instruction("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {$0,$1}, [$2];", "rr", "r")

# Asynchronous copy of 16 bytes, global -> shared; the last argument is how many bytes to read (the rest are zeros).
cp_async_16 = _instruction("cp.async.cg.shared.global [$0], [$1], 16, $2;", "", "rlr")
# The same where the last argument is not zero, and nothing elsewhere.
cp_async_16_if = _instruction(
    "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p cp.async.cg.shared.global [$0], [$1], 16; }", "", "rlr"
)
cp_async_commit = _instruction("cp.async.commit_group;")
cp_async_wait_0 = _instruction("cp.async.wait_group 0;")
cp_async_wait_1 = _instruction("cp.async.wait_group 1;")
cp_async_wait_2 = _instruction("cp.async.wait_group 2;")

# Loads of read-only data. Streamed data (read once) skips L1, so that L1 keeps what is read again.
load_u32 = _instruction("ld.global.nc.u32 $0, [$1];", "r", "l", memory=False)
load_u16 = _instruction(
    "{ .reg .b16 half; ld.global.nc.b16 half, [$1]; cvt.u32.u16 $0, half; }", "r", "l", memory=False
)
load_v4 = _instruction("ld.global.nc.v4.u32 {$0,$1,$2,$3}, [$4];", "rrrr", "l", memory=False)
load_f32x4 = _instruction("ld.global.nc.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "l", memory=False)
stream_v4 = _instruction("ld.global.nc.L1::no_allocate.v4.u32 {$0,$1,$2,$3}, [$4];", "rrrr", "l", memory=False)
# The last argument says whether to load; without it the result is undefined and must not be used.
stream_v4_if = _instruction(
    "{ .reg .pred p; setp.ne.u32 p, $5, 0; @p ld.global.nc.L1::no_allocate.v4.u32 {$0,$1,$2,$3}, [$4]; }",
    "rrrr",
    "lr",
)
# Stores to global memory.
store_f32x2 = _instruction("st.global.v2.f32 [$0], {$1,$2};", "", "lff")
store_u32 = _instruction("st.global.u32 [$0], $1;", "", "lr")
store_u32x2 = _instruction("st.global.v2.u32 [$0], {$1,$2};", "", "lrr")
store_f32x4 = _instruction("st.global.v4.f32 [$0], {$1,$2,$3,$4};", "", "lffff")

# Stores to shared memory.
shared_zero_16 = _instruction("{ .reg .b32 z; mov.u32 z, 0; st.shared.v4.u32 [$0], {z,z,z,z}; }", "", "r")
# One Tiled-CSL word: store the low 16 bits (the value) at half-precision element (high 16 bits) after the address.
shared_scatter_word = _instruction(
    "{ .reg .b16 value, location; .reg .b32 address; mov.b32 {value, location}, $1; "
    "mul.wide.u16 address, location, 2; add.u32 address, address, $0; st.shared.b16 [address], value; }",
    "",
    "rr",
)

# Loads from shared memory: one word, a byte or a half of one, two words, four.
shared_load = _instruction("ld.shared.b32 $0, [$1];", "r", "r")
shared_load_u8 = _instruction("ld.shared.u8 $0, [$1];", "r", "r")
shared_load_u16 = _instruction("ld.shared.u16 $0, [$1];", "r", "r")
shared_load_v2 = _instruction("ld.shared.v2.u32 {$0,$1}, [$2];", "rr", "r")
shared_load_v4 = _instruction("ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];", "rrrr", "r")


def _bit_tests(bits: int) -> str:
    """Predicates p0, p1 ... of so many bits of mask $4 from bit ``one`` on."""
    tests = ""
    for i in range(bits):
        tests += f"and.b32 bit, $4, one; setp.ne.u32 p{i}, bit, 0; " + "shl.b32 one, one, 1; " * (i < bits - 1)
    return tests


def _gather_octet(n_bytes: int = 2) -> Any:
    """Eight packed halves, or zeros, as 4 registers: for each of the mask's bits that is set, the next value in memory.

    With ``n_bytes`` 1 values are bytes, each in the lower half of its 16 bits.

    Arguments: mask, address of the first value, and a mask of one bit, the first slot's; the others are above it.
    """
    tests, loads = _bit_tests(8), ""
    load, step = f"ld.shared.u{8 * n_bytes}", f"add.u32 place, place, {n_bytes}; "
    for pair in range(4):
        low, high = f"@p{2 * pair} ", f"@p{2 * pair + 1} "
        loads += f"mov.b32 r{pair}, 0; {low}{load} r{pair}, [place]; {low}{step}"
        loads += f"{high}{load} high, [place]; {high}mad.lo.u32 r{pair}, high, 65536, r{pair}; "
        loads += f"{high}{step}" * (pair < 3)
    declare = "{ .reg .pred p<8>; .reg .b32 r<4>, bit, place, one, high; mov.b32 place, $5; mov.b32 one, $6; "
    results = " ".join(f"mov.b32 ${i}, r{i};" for i in range(4))
    return _instruction(declare + tests + loads + results + " }", "rrrr", "rrr")


def _gather_nibbles() -> Any:
    """As `shared_gather_octet` for values of 4 bits, each in the lowest of its 16: at most two words, taken apart.

    Arguments: mask, number of the first nibble and of that behind the last, counted from address 0, and the first bit.
    """
    tests = _bit_tests(8)
    window = "setp.ne.u32 any, $5, $6; shr.u32 low, $5, 1; and.b32 low, low, 0xfffffffc; sub.u32 high, $6, 1; "
    window += "shr.u32 high, high, 1; and.b32 high, high, 0xfffffffc; shl.b32 start, $5, 2; "
    window += "@any ld.shared.u32 low, [low]; @any ld.shared.u32 high, [high]; "
    window += "@any shf.r.wrap.b32 next, low, high, start; "
    parts = ""
    for pair in range(4):
        low, high = f"@p{2 * pair} ", f"@p{2 * pair + 1} "
        parts += f"mov.b32 r{pair}, 0; {low}and.b32 r{pair}, next, 15; {low}shr.u32 next, next, 4; "
        parts += f"{high}and.b32 high, next, 15; {high}mad.lo.u32 r{pair}, high, 65536, r{pair}; "
        parts += f"{high}shr.u32 next, next, 4; " * (pair < 3)
    declare = "{ .reg .pred p<8>, any; .reg .b32 r<4>, bit, one, low, high, start, next; mov.b32 one, $7; "
    results = " ".join(f"mov.b32 ${i}, r{i};" for i in range(4))
    return _instruction(declare + tests + window + parts + results + " }", "rrrr", "rrrr")


def _gather_quad(n_bytes: int = 4) -> Any:
    """Four packed pairs of halves, or zeros: for each of the mask's bits that is set, the next word in memory.

    With fewer ``n_bytes`` what a bit stands for is shorter, in the lowest bits of its register. Arguments as for
    `shared_gather_octet`.
    """
    tests, loads = _bit_tests(4), ""
    for register in range(4):
        there = f"@p{register} "
        loads += f"mov.b32 r{register}, 0; {there}ld.shared.u{8 * n_bytes} r{register}, [place]; "
        loads += f"{there}add.u32 place, place, {n_bytes}; " * (register < 3)
    declare = "{ .reg .pred p<4>; .reg .b32 r<4>, bit, place, one; mov.b32 place, $5; mov.b32 one, $6; "
    results = " ".join(f"mov.b32 ${i}, r{i};" for i in range(4))
    return _instruction(declare + tests + loads + results + " }", "rrrr", "rrr")


shared_gather_octet = _gather_octet()
shared_gather_bytes = _gather_octet(1)
shared_gather_nibbles = _gather_nibbles()
shared_gather_quad = _gather_quad()
shared_gather_byte_pairs = _gather_quad(2)
shared_gather_nibble_pairs = _gather_quad(1)
# Quotient of two numbers from 0 on, in 32 bits; Numba's own division takes 64 and a function call.
divide = _instruction("div.u32 $0, $1, $2;", "r", "rr", memory=False)
# Sum of the products of the bytes of $1 and $2, added to $3.
dot_bytes = _instruction("dp4a.u32.u32 $0, $1, $2, $3;", "r", "rrr", memory=False)

# Conversions: two float32 -> fp16 pair (second argument in the low half), and back, low and high half.
pack_f16x2 = _instruction("cvt.rn.f16x2.f32 $0, $1, $2;", "r", "ff", memory=False)
low_half = _instruction(
    "{ .reg .b16 low, high; mov.b32 {low, high}, $1; cvt.f32.f16 $0, low; }", "f", "r", memory=False
)
high_half = _instruction(
    "{ .reg .b16 low, high; mov.b32 {low, high}, $1; cvt.f32.f16 $0, high; }", "f", "r", memory=False
)

# A half of a register in both halves.
low_twice = _instruction("prmt.b32 $0, $1, 0, 0x1010;", "r", "r", memory=False)
high_twice = _instruction("prmt.b32 $0, $1, 0, 0x3232;", "r", "r", memory=False)
# The two low bytes, or nibbles of the lowest byte, each in a half of its own.
spread_bytes = _instruction("prmt.b32 $0, $1, 0, 0x4140;", "r", "r", memory=False)
spread_nibbles = _instruction(
    "{ .reg .b32 t; shl.b32 t, $1, 12; or.b32 t, t, $1; and.b32 $0, t, 0x000f000f; }", "r", "r", memory=False
)


def _scaled_integers(magic: int) -> Any:
    """Two codes in two's complement, one in the low bits of each half, as fp16 times a pair of scales.

    ``magic`` is 1024 plus a code's sign bit as fp16, whose last mantissa bits count ones: the code's sign bit flipped
    and put there, magic is subtracted exactly.
    """
    bits = f"0x{magic:04x}{magic:04x}"
    text = f"{{ .reg .b32 t, magic; mov.b32 magic, {bits}; xor.b32 t, $1, magic; sub.rn.f16x2 t, t, magic; "
    return _instruction(text + "mul.rn.f16x2 $0, t, $2; }", "r", "rr", memory=False)


scaled_int8 = _scaled_integers(0x6480)
scaled_int4 = _scaled_integers(0x6408)
# The same of E4M3 as numbers smaller by 2**8: seven bits go where fp16 has them, and the sign is carried one further.
scaled_e4m3 = _instruction(
    "{ .reg .b32 t, sign; shl.b32 t, $1, 7; and.b32 sign, t, 0x40004000; add.u32 t, t, sign; mul.rn.f16x2 $0, t, $2; }",
    "r",
    "rr",
    memory=False,
)
# And of E5M2, the upper byte of fp16.
scaled_e5m2 = _instruction("{ .reg .b32 t; shl.b32 t, $1, 8; mul.rn.f16x2 $0, t, $2; }", "r", "rr", memory=False)

# Sum over lanes: the value of the lane whose number differs in the given bits.
shuffle_xor = _instruction("shfl.sync.bfly.b32 $0, $1, $2, 31, 0xffffffff;", "f", "fr")

# A loop that counts with this addition is not unrolled, neither by LLVM, which cannot look into it, nor by the
# assembler, which obeys the pragma (\22 is a quotation mark in LLVM): a rare path need not cost registers.
add_no_unroll = _instruction(r".pragma \22nounroll\22; add.s32 $0, $1, $2;", "r", "rr")

# Running sums over lanes: adds the value of the lane $2 below, where there is one. And the value of lane 31.
add_from_lane_below = _instruction(
    "{ .reg .pred inside; .reg .b32 other; shfl.sync.up.b32 other|inside, $1, $2, 0, 0xffffffff; "
    "mov.b32 $0, $1; @inside add.u32 $0, $0, other; }",
    "r",
    "rr",
)
from_last_lane = _instruction("shfl.sync.idx.b32 $0, $1, 31, 31, 0xffffffff;", "r", "r")

# The same value, from a place that the assembler cannot see through: it keeps the register instead of computing the
# value again at each use, which in a long loop costs more than the register.
hold = _instruction(
    "{ .reg .b32 lane; mov.u32 lane, %laneid; shfl.sync.idx.b32 $0, $1, lane, 31, 0xffffffff; }", "r", "r"
)
hold_address = _instruction(
    "{ .reg .b32 lane, low, high; mov.u32 lane, %laneid; mov.b64 {low, high}, $1; "
    "shfl.sync.idx.b32 low, low, lane, 31, 0xffffffff; shfl.sync.idx.b32 high, high, lane, 31, 0xffffffff; "
    "mov.b64 $0, {low, high}; }",
    "l",
    "l",
)

# Between blocks: a flag that says that what was written before it can be read, and the look at it; plain loads of what
# another block wrote, which must not come from a read-only cache.
release_u32 = _instruction("fence.acq_rel.gpu; st.relaxed.gpu.global.u32 [$0], $1;", "", "lr")
acquire_u32 = _instruction("ld.acquire.gpu.global.u32 $0, [$1];", "r", "l")
read_f32x4 = _instruction("ld.global.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "l")

# Numbers of thread and block that are read again wherever they are asked for, instead of keeping a register for a rare
# path.
thread_x = _instruction("mov.u32 $0, %tid.x;", "r")
block_x = _instruction("mov.u32 $0, %ctaid.x;", "r")
block_y = _instruction("mov.u32 $0, %ctaid.y;", "r")
blocks_y = _instruction("mov.u32 $0, %nctaid.y;", "r")

# Whether a number is not zero in any lane: the same for all of them, which the assembler then knows too.
any_lane = _instruction(
    "{ .reg .pred p; setp.ne.u32 p, $1, 0; vote.sync.any.pred p, p, 0xffffffff; selp.u32 $0, 1, 0, p; }", "r", "r"
)

# Hopper's bulk copies: one instruction of one thread moves any multiple of 16 bytes, and a barrier in shared memory
# counts the bytes that have arrived. Barriers and destinations are shared addresses; a policy says that weights, read
# once, are the first to leave L2.
barrier_init = _instruction("mbarrier.init.shared::cta.b64 [$0], $1;", "", "rr")
barrier_init_visible = _instruction("fence.mbarrier_init.release.cluster;")
barrier_expect = _instruction("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "", "rr")
barrier_wait = _instruction(
    "{ .reg .pred done; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; @!done bra AGAIN; }", "", "rr"
)
bulk_copy = _instruction(
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [$0], [$1], $2, [$3], $4;",
    "",
    "rlrrl",
)
evict_first = _instruction("createpolicy.fractional.L2::evict_first.b64 $0, 1.0;", "l", "", memory=False)
elected = _instruction(
    "{ .reg .pred p; .reg .b32 lane; elect.sync lane|p, 0xffffffff; selp.u32 $0, 1, 0, p; }", "r", ""
)
sync_warp = _instruction("bar.warp.sync 0xffffffff;")
