/* A driver in host memory: one GPU, whose kernels do nothing but be remembered. Names and types are those of cuda.h. */
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

static int retained, current = 0, captured, launched, replayed;
static unsigned geometry[7];
static long long pointers[2];
static int number;

CUresult cuInit(unsigned flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) { strncpy(name, "NVIDIA H200", length); return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 60 << 20; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { retained = 1; *context = (CUcontext)&retained; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { current = context == (CUcontext)&retained; return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext context) { current++; return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext *context) { current--; *context = (CUcontext)&retained; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return current > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }
CUresult cuCtxSynchronize(void) { return CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult error, const char **text) { *text = error == CUDA_ERROR_INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR_OTHER"; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = "invalid device context"; return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule *module, const void *image) { *module = (CUmodule)image; return memcmp(image, "\177ELF", 4) ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) { *function = (CUfunction)strdup(name); return CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) { return posix_memalign((void **)address, 256, bytes) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS; }
CUresult cuMemFree(CUdeviceptr address) { free((void *)address); return CUDA_SUCCESS; }
CUresult cuMemcpyHtoD(CUdeviceptr target, const void *source, size_t bytes) { memcpy((void *)target, source, bytes); return CUDA_SUCCESS; }
CUresult cuMemcpyDtoH(void *target, CUdeviceptr source, size_t bytes) { memcpy(target, (void *)source, bytes); return CUDA_SUCCESS; }
CUresult cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) { memcpy((void *)target, (void *)source, bytes); return CUDA_SUCCESS; }
CUresult cuMemsetD16Async(CUdeviceptr target, unsigned short word, size_t count, CUstream stream) { for (size_t i = 0; i < count; i++) ((unsigned short *)target)[i] = word; return CUDA_SUCCESS; }
CUresult cuStreamCreate(CUstream *stream, unsigned flags) { *stream = (CUstream)&captured; return flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) { captured = 1; return mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) { *graph = (CUgraph)&launched; captured = 0; return CUDA_SUCCESS; }
CUresult cuGraphInstantiate(CUgraphExec *ready, CUgraph graph, unsigned long long flags) { *ready = (CUgraphExec)&replayed; return graph == (CUgraph)&launched ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuGraphLaunch(CUgraphExec ready, CUstream stream) { replayed++; return ready == (CUgraphExec)&replayed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuEventCreate(CUevent *event, unsigned flags) { *event = (CUevent)calloc(1, sizeof(int)); return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) { *(int *)event = launched + replayed; return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent event) { return CUDA_SUCCESS; }
#undef cuEventElapsedTime /* the name of older drivers, which newer ones keep */
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end) { *ms = 0.5f * (*(int *)end - *(int *)start); return CUDA_SUCCESS; }
#undef cuDeviceGetUuid
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) { for (int i = 0; i < 16; i++) uuid->bytes[i] = i; return CUDA_SUCCESS; }
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                        unsigned shared, CUstream stream, void **arguments, void **extra) {
    unsigned given[7] = {x, y, z, tx, ty, tz, shared};
    if (extra || stream != (CUstream)&captured || strcmp((char *)function, "reduce")) return CUDA_ERROR_INVALID_VALUE;
    memcpy(geometry, given, sizeof given);
    for (int i = 0; i < 2; i++) pointers[i] = *(long long *)arguments[i];
    number = *(int *)arguments[3];
    launched += !captured;
    return CUDA_SUCCESS;
}
/* What the test asks. */
unsigned told_geometry(int i) { return geometry[i]; }
long long told_pointer(int i) { return pointers[i]; }
int told_number(void) { return number; }
