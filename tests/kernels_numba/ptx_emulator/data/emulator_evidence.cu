// Small kernels for tests/kernels_numba/ptx_emulator/test_evidence.py. The compiler, not we, chooses the PTX instructions.
// emulator_evidence.ptx was made by CUDA 13.0 (V13.0.88):
//   nvcc -arch=sm_80 -ptx -o emulator_evidence.ptx emulator_evidence.cu
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

// Division by constants, 64-bit products, bit counts, byte permutation, funnel shifts, a jump table.
extern "C" __global__ void integers(const uint32_t *a, const int32_t *b, uint64_t *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint32_t x = a[i];
    int32_t y = b[i];
    uint64_t *o = out + (size_t)i * 12;
    o[0] = x / 7u;
    o[1] = (uint64_t)(int64_t)(y / 10);
    o[2] = (uint64_t)(int64_t)(y % 1000);
    o[3] = __umul64hi(((uint64_t)x << 32) | (uint32_t)y, 0x9E3779B97F4A7C15ull);
    o[4] = __popc(x) + 100 * __clz(y) + 10000 * __ffs(x);
    o[5] = __brev(x);
    o[6] = __byte_perm(x, (uint32_t)y, 0x6143);
    o[7] = __funnelshift_l(x, (uint32_t)y, 13);
    o[8] = (uint64_t)((int64_t)y * y >> 7);
    o[9] = (((uint64_t)x << 20) + 12345) / 97u;
    o[10] = (x >> 5 & 0x3FF) | ((uint32_t)(y << 3 >> 25) & 0xFFFF) << 16;
    uint64_t r;
    switch (x % 8) {
        case 0: r = x + 1; break;
        case 1: r = x * 3; break;
        case 2: r = x ^ (uint32_t)y; break;
        case 3: r = __uhadd(x, (uint32_t)y); break;
        case 4: r = x >> (y & 31); break;
        case 5: r = max(x, (uint32_t)y); break;
        case 6: r = (uint32_t)abs(y); break;
        default: r = 42;
    }
    o[11] = r;
}

// float <-> half, bfloat16, integers; packed half arithmetic.
extern "C" __global__ void floats(const float *a, const float *b, float *out, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    float x = a[i], y = b[i], *o = out + i * 10;
    __half2 h = __floats2half2_rn(x, y);
    __half2 g = __hfma2(h, __float2half2_rn(0.333f), h);
    o[0] = __low2float(h);
    o[1] = __high2float(g);
    o[2] = __bfloat162float(__float2bfloat16(x));
    o[3] = fmaf(x, y, 1.0f);
    o[4] = (float)__float2int_rz(x * 1e6f) + (float)__float2uint_rn(fabsf(y));
    o[5] = x < y ? fminf(x, 0.5f) : fmaxf(y, -0.5f);
    o[6] = x / y;
    o[7] = sqrtf(fabsf(x));
    o[8] = (float)((double)x * (double)y);
    o[9] = __half2float(__hmul(__float2half(x), __float2half(y)));
}

// Sum of each block by shuffles, shared memory and one atomic; ranks of positive elements by ballots.
extern "C" __global__ void reductions(const int *a, int *total, int *rank, int n) {
    __shared__ int partial[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int v = i < n ? a[i] : 0;
    unsigned positive = __ballot_sync(0xFFFFFFFFu, v > 0);
    if (i < n) rank[i] = __popc(positive & ((1u << lane) - 1));
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(0xFFFFFFFFu, v, d);
    if (lane == 0) partial[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = lane < (int)blockDim.x / 32 ? partial[lane] : 0;
        for (int d = 16; d; d >>= 1) v += __shfl_down_sync(0xFFFFFFFFu, v, d);
        if (lane == 0) atomicAdd(total, v);
    }
}

// Three-stage cp.async pipeline, reversal of every tile through shared memory.
extern "C" __global__ void pipeline(const float4 *in, float4 *out, int tiles) {
    extern __shared__ float4 stage[];
    int t = threadIdx.x, n = blockDim.x;
    for (int s = 0; s < 2; ++s) {
        if (s < tiles) __pipeline_memcpy_async(stage + s * n + t, in + s * n + t, 16);
        __pipeline_commit();
    }
    for (int i = 0; i < tiles; ++i) {
        __pipeline_wait_prior(1);
        __syncthreads();
        int next = i + 2;
        if (next < tiles) __pipeline_memcpy_async(stage + next % 3 * n + t, in + next * n + t, 16);
        __pipeline_commit();
        out[i * n + t] = stage[i % 3 * n + (n - 1 - t)];
    }
}

// An array with run-time indices lives in local memory; threads of a warp loop a different number of times.
extern "C" __global__ void local_array(const int *a, int *out) {
    int counts[16];
    for (int i = 0; i < 16; ++i) counts[i] = 0;
    unsigned state = a[threadIdx.x];
    for (unsigned i = 0; i < threadIdx.x % 7 + 3; ++i) {
        state = state * 1664525u + 1013904223u;
        counts[state >> 28] += i + 1;
    }
    int sum = 0;
    for (int i = 0; i < 16; ++i) sum += counts[i] * (i + 1);
    out[threadIdx.x] = sum;
}
