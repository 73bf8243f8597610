/* The driver as far as an exported pack uses it: loads what lies there, launches nothing and remembers it. */
#include <cuda.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fake/fake.h"

struct fake_cuda fake = {.name = "NVIDIA H100 80GB HBM3", .major = 9, .minor = 0, .multiprocessors = 132};

CUresult cuCtxGetDevice(CUdevice *device) {
    *device = 0;
    return fake.no_context ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device) {
    (void)device;
    strncpy(name, fake.name, (size_t)bytes - 1);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device) {
    (void)device;
    *value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? fake.major
             : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? fake.minor
                                                                     : fake.multiprocessors;
    return CUDA_SUCCESS;
}

/* A module is the name of its file, a function what fake.h says. */
enum { NAME = sizeof((struct fake_function *)0)->file };

CUresult cuModuleLoad(CUmodule *module, const char *path) {
    char *name = calloc(1, NAME);
    if (!name || access(path, R_OK)) return free(name), CUDA_ERROR_FILE_NOT_FOUND;
    strncpy(name, strrchr(path, '/') + 1, NAME - 1);
    *module = (CUmodule)name;
    fake.modules++;
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    fake.modules--;
    free(module);
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *entry) {
    static struct fake_function functions[256];
    static int count;
    struct fake_function *f = &functions[count++ % 256];
    strncpy(f->file, (const char *)module, sizeof f->file - 1);
    strncpy(f->entry, entry, sizeof f->entry - 1);
    f->shared_bytes = 0;
    *function = (CUfunction)f;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    if (which == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        ((struct fake_function *)function)->shared_bytes = value;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char **text) {
    *text = result == CUDA_ERROR_FILE_NOT_FOUND ? "file not found" : "error";
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *memory,
                                const cuuint64_t *sides, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *every, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
    struct fake_map *seen = (struct fake_map *)map;
    if (rank != 2 || every[0] != 1 || every[1] != 1 || interleave || fill) return CUDA_ERROR_INVALID_VALUE;
    *seen = (struct fake_map){type, swizzle, promotion, memory, {sides[0], sides[1]}, strides[0], {box[0], box[1]}};
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
    if (extra) return CUDA_ERROR_INVALID_VALUE;
    fake.launches++;
    fake.config = *config;
    fake.cluster = fake.overlaps = 0;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute *a = &config->attrs[i];
        if (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) fake.cluster = (int)a->value.clusterDim.x;
        if (a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            fake.overlaps = a->value.programmaticStreamSerializationAllowed;
    }
    fake.function = (struct fake_function *)function;
    memcpy(fake.parameters, parameters[0], sizeof fake.parameters);
    return CUDA_SUCCESS;
}
