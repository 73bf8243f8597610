#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/nvrtc.h"
#include "kernels/embedded.h"

/* The symbol names carry the version of the interface whose type cuda.h declares. */
#define CALLS(X)                                                                                                       \
    X(init, cuInit, "cuInit")                                                                                          \
    X(version, cuDriverGetVersion, "cuDriverGetVersion")                                                               \
    X(error_name, cuGetErrorName, "cuGetErrorName")                                                                    \
    X(error_string, cuGetErrorString, "cuGetErrorString")                                                              \
    X(device_count, cuDeviceGetCount, "cuDeviceGetCount")                                                              \
    X(device_get, cuDeviceGet, "cuDeviceGet")                                                                          \
    X(device_name, cuDeviceGetName, "cuDeviceGetName")                                                                 \
    X(device_uuid, cuDeviceGetUuid, "cuDeviceGetUuid_v2")                                                              \
    X(device_memory, cuDeviceTotalMem, "cuDeviceTotalMem_v2")                                                          \
    X(device_attribute, cuDeviceGetAttribute, "cuDeviceGetAttribute")                                                  \
    X(context_retain, cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain")                                            \
    X(peer_possible, cuDeviceCanAccessPeer, "cuDeviceCanAccessPeer")                                                   \
    X(peer_enable, cuCtxEnablePeerAccess, "cuCtxEnablePeerAccess")                                                     \
    X(context_release, cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2")                                      \
    X(context_set, cuCtxSetCurrent, "cuCtxSetCurrent")                                                                 \
    X(stream_create, cuStreamCreate, "cuStreamCreate")                                                                 \
    X(stream_destroy, cuStreamDestroy, "cuStreamDestroy_v2")                                                           \
    X(stream_synchronize, cuStreamSynchronize, "cuStreamSynchronize")                                                  \
    X(event_create, cuEventCreate, "cuEventCreate")                                                                    \
    X(event_destroy, cuEventDestroy, "cuEventDestroy_v2")                                                              \
    X(event_record, cuEventRecord, "cuEventRecord")                                                                    \
    X(event_synchronize, cuEventSynchronize, "cuEventSynchronize")                                                     \
    X(event_elapsed, cuEventElapsedTime, "cuEventElapsedTime")                                                         \
    X(memory_alloc, cuMemAlloc, "cuMemAlloc_v2")                                                                       \
    X(memory_release, cuMemFree, "cuMemFree_v2")                                                                       \
    X(host_alloc, cuMemHostAlloc, "cuMemHostAlloc")                                                                    \
    X(host_release, cuMemFreeHost, "cuMemFreeHost")                                                                    \
    X(memory_info, cuMemGetInfo, "cuMemGetInfo_v2")                                                                    \
    X(memory_write, cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2")                                                         \
    X(memory_read, cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2")                                                          \
    X(memory_copy, cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2")                                                          \
    X(memory_fill, cuMemsetD8Async, "cuMemsetD8Async")                                                                 \
    X(module_load, cuModuleLoadData, "cuModuleLoadData")                                                               \
    X(module_unload, cuModuleUnload, "cuModuleUnload")                                                                 \
    X(module_function, cuModuleGetFunction, "cuModuleGetFunction")                                                     \
    X(function_get, cuFuncGetAttribute, "cuFuncGetAttribute")                                                          \
    X(function_set, cuFuncSetAttribute, "cuFuncSetAttribute")                                                          \
    X(capture_begin, cuStreamBeginCapture, "cuStreamBeginCapture_v2")                                                  \
    X(capture_end, cuStreamEndCapture, "cuStreamEndCapture")                                                           \
    X(graph_instantiate, cuGraphInstantiate, "cuGraphInstantiateWithFlags")                                            \
    X(graph_launch, cuGraphLaunch, "cuGraphLaunch")                                                                    \
    X(graph_release, cuGraphExecDestroy, "cuGraphExecDestroy")                                                         \
    X(capture_release, cuGraphDestroy, "cuGraphDestroy")                                                               \
    X(launch, cuLaunchKernelEx, "cuLaunchKernelEx")                                                                    \
    X(tensor_map, cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled")

static struct {
#define MEMBER(name, type, symbol) __typeof__(&type) name;
    CALLS(MEMBER)
    char text[64];      /* "driver 580.159, cuda 13.0" */
    struct error error; /* why it is not usable; empty when it is */
} driver;

struct module {
    struct module *next;
    char *source, *options;
    CUmodule handle;
};

struct device_function {
    struct device_function *next;
    const struct module *module;
    char *entry;
    size_t shared_bytes;
    CUfunction handle;
};

struct device_graph {
    CUgraphExec handle;
};

struct state {
    CUdevice device;
    CUcontext context;
    CUstream stream;
    CUevent events[DEVICE_MARKS];
    bool recording;        /* between begin and end of a capture of the stream */
    bool apart;            /* as cuda_stand_apart set it */
    pthread_mutex_t mutex; /* of the two lists */
    struct module *modules;
    struct device_function *functions;
};

/* --- the driver --- */

/* "580.159.03" from the line "NVRM version: NVIDIA UNIX ... Kernel Module ...  580.159.03 ..."; "" without one. */
static void read_version(char *version, size_t size) {
    char line[256] = "", *rest;
    version[0] = 0;
    FILE *file = fopen("/proc/driver/nvidia/version", "r");
    if (!file) return;
    if (!fgets(line, sizeof line, file)) line[0] = 0;
    fclose(file);
    for (char *word = strtok_r(line, " \t\n", &rest); word; word = strtok_r(NULL, " \t\n", &rest)) {
        if (word[strspn(word, "0123456789.")] || !strchr(word, '.')) continue;
        snprintf(version, size, "%s", word);
        return;
    }
}

static void load_driver(void) {
    void *library = cuda_library((const char *const[]){"libcuda.so.1", NULL});
    if (!library) {
        error_set(&driver.error, "no NVIDIA driver here (libcuda.so.1 was not found)");
        return;
    }
#define LOAD(name, type, symbol)                                                                                       \
    if (!(driver.name = (__typeof__(&type))dlsym(library, symbol)))                                                    \
        error_set(&driver.error, "the NVIDIA driver is too old: it has no " symbol);
    CALLS(LOAD)
    if (driver.error.text[0]) return;
    CUresult result = driver.init(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        error_set(&driver.error, "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)");
    else
        cuda_check(result, "the NVIDIA driver does not start: cuInit", &driver.error);
    int cuda = 0;
    char version[24];
    driver.version(&cuda);
    read_version(version, sizeof version);
    snprintf(driver.text, sizeof driver.text, "%s%s%scuda %d.%d", version[0] ? "driver " : "", version,
             version[0] ? ", " : "", cuda / 1000, cuda % 1000 / 10);
}

static int open_driver(struct error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_driver);
    return driver.error.text[0] ? error_set(error, "%s", driver.error.text) : 0;
}

int cuda_check(CUresult result, const char *what, struct error *error) {
    if (result == CUDA_SUCCESS) return 0;
    const char *name = NULL, *text = NULL;
    driver.error_name(result, &name);
    driver.error_string(result, &text);
    return error_set(error, "%s: %s (%s)", what, name ? name : "unknown CUDA error", text ? text : "no description");
}

int cuda_count(struct error *why) {
    int count = 0;
    if (open_driver(why) || cuda_check(driver.device_count(&count), "counting GPUs", why)) return 0;
    if (count == 0) error_set(why, "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)");
    return count;
}

static struct state *state_of(const struct device *device) {
    return device->state;
}

CUstream cuda_stream(const struct device *device) {
    return state_of(device)->stream;
}

void cuda_stand_apart(struct device *device) {
    state_of(device)->apart = true;
}

int cuda_reach(const struct device *from, const struct device *to, bool *reaches, struct error *error) {
    const struct state *here = state_of(from), *there = state_of(to);
    int possible = 0;
    if (cuda_check(driver.peer_possible(&possible, here->device, there->device), "asking for peer access", error) ||
        cuda_enter(from, error))
        return -1;
    *reaches = possible || here->context == there->context;
    if (!possible) return 0;
    CUresult result = driver.peer_enable(there->context, 0);
    if (result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) return 0;
    return cuda_check(result, "enabling peer access", error);
}

int cuda_enter(const struct device *device, struct error *error) {
    return cuda_check(driver.context_set(state_of(device)->context), device->id, error);
}

/* For calls that a graph cannot hold: -1 while one is recorded. Made all the same, they would break the capture. */
static int refuse_recording(const struct device *device, const char *what, struct error *error) {
    return state_of(device)->recording ? error_set(error, "%s: not while a graph is recorded", what) : 0;
}

/* --- memory and order --- */

static void *cuda_alloc(struct device *device, size_t bytes, struct error *error) {
    CUdeviceptr memory = 0;
    size_t available = 0, total = 0;
    if (refuse_recording(device, "allocating device memory", error) || cuda_enter(device, error)) return NULL;
    CUresult result = driver.memory_alloc(&memory, bytes ? bytes : 1);
    if (result == CUDA_SUCCESS) return (void *)(uintptr_t)memory;
    if (result != CUDA_ERROR_OUT_OF_MEMORY) {
        cuda_check(result, "allocating device memory", error);
        return NULL;
    }
    driver.memory_info(&available, &total);
    error_set(error, "%s: out of memory: asked for %zu bytes (%.2f GB), %zu (%.2f GB) of %.2f GB are free", device->id,
              bytes, (double)bytes / 1e9, available, (double)available / 1e9, (double)total / 1e9);
    return NULL;
}

/* An error that an earlier kernel left behind shows up in the next call that can report it. */
static void cuda_free(struct device *device, void *memory) {
    if (cuda_enter(device, NULL)) return;
    driver.stream_synchronize(cuda_stream(device));
    driver.memory_release((CUdeviceptr)(uintptr_t)memory);
}

static void *cuda_alloc_host(struct device *device, size_t bytes, struct error *error) {
    void *memory = NULL;
    if (refuse_recording(device, "allocating host memory", error) || cuda_enter(device, error)) return NULL;
    CUresult result =
        driver.host_alloc(&memory, bytes ? bytes : 1, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    if (result == CUDA_SUCCESS) return memory;
    cuda_check(result, "allocating host memory", error);
    error_prefix(error, "%s: %zu bytes (%.2f GB) of the host's memory that the GPU can reach", device->id, bytes,
                 (double)bytes / 1e9);
    return NULL;
}

static void cuda_free_host(struct device *device, void *memory) {
    if (cuda_enter(device, NULL)) return;
    driver.stream_synchronize(cuda_stream(device));
    driver.host_release(memory);
}

static size_t cuda_memory_free(struct device *device) {
    size_t available = 0, total = 0;
    if (cuda_enter(device, NULL) || driver.memory_info(&available, &total)) return SIZE_MAX;
    return available;
}

static int cuda_synchronize(struct device *device, struct error *error) {
    if (refuse_recording(device, "waiting for the GPU", error) || cuda_enter(device, error)) return -1;
    return cuda_check(driver.stream_synchronize(cuda_stream(device)), "waiting for the GPU", error);
}

/* Waits, as CUDA leaves open whether a copy from pageable memory has read all of it when the call returns. */
static int cuda_write(struct device *device, void *to, const void *from, size_t bytes, struct error *error) {
    if (refuse_recording(device, "copying to the GPU", error) || cuda_enter(device, error)) return -1;
    CUresult result = driver.memory_write((CUdeviceptr)(uintptr_t)to, from, bytes, cuda_stream(device));
    if (cuda_check(result, "copying to the GPU", error)) return -1;
    return cuda_synchronize(device, error);
}

static int cuda_read(struct device *device, void *to, const void *from, size_t bytes, struct error *error) {
    if (refuse_recording(device, "copying from the GPU", error) || cuda_enter(device, error)) return -1;
    CUresult result = driver.memory_read(to, (CUdeviceptr)(uintptr_t)from, bytes, cuda_stream(device));
    if (cuda_check(result, "copying from the GPU", error)) return -1;
    return cuda_synchronize(device, error);
}

static int cuda_copy(struct device *device, void *to, const void *from, size_t bytes, struct error *error) {
    if (cuda_enter(device, error)) return -1;
    CUdeviceptr destination = (CUdeviceptr)(uintptr_t)to, source = (CUdeviceptr)(uintptr_t)from;
    return cuda_check(driver.memory_copy(destination, source, bytes, cuda_stream(device)), "copying on the GPU", error);
}

static int cuda_fill(struct device *device, void *to, unsigned char byte, size_t bytes, struct error *error) {
    if (cuda_enter(device, error)) return -1;
    CUresult result = driver.memory_fill((CUdeviceptr)(uintptr_t)to, byte, bytes, cuda_stream(device));
    return cuda_check(result, "filling device memory", error);
}

/* --- device code --- */

static struct module *find_module(struct state *state, const char *source, const char *options) {
    struct module *module = state->modules;
    while (module && (strcmp(module->source, source) || strcmp(module->options, options))) module = module->next;
    return module;
}

static void free_module(struct module *module) {
    if (module->handle) driver.module_unload(module->handle);
    free(module->source);
    free(module->options);
    free(module);
}

/* With the mutex held. */
static struct module *load_module(struct state *state, const char *source, const char *options, const void *cubin,
                                  struct error *error) {
    struct module *module = calloc(1, sizeof *module);
    if (!module || !(module->source = strdup(source)) || !(module->options = strdup(options))) {
        error_set(error, "out of memory");
    } else if (!cuda_check(driver.module_load(&module->handle, cubin), source, error)) {
        module->next = state->modules;
        return state->modules = module;
    }
    if (module) free_module(module);
    return NULL;
}

/* The kernel may use `bytes` of dynamic shared memory; never less than what was allowed before. */
static int allow_shared(CUfunction function, size_t bytes, const char *what, struct error *error) {
    int allowed = 0;
    CUfunction_attribute attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    if (cuda_check(driver.function_get(&allowed, attribute, function), what, error)) return -1;
    if ((size_t)allowed >= bytes) return 0;
    if (!driver.function_set(function, attribute, (int)bytes)) return 0;
    return error_set(error, "%s: a block cannot have %zu bytes of dynamic shared memory on this GPU", what, bytes);
}

/* With the mutex held: the function that is there, or a new one. */
static struct device_function *find_function(struct state *state, const struct module *module, const char *entry,
                                             size_t shared_bytes, struct error *error) {
    for (struct device_function *f = state->functions; f; f = f->next)
        if (f->module == module && f->shared_bytes == shared_bytes && !strcmp(f->entry, entry)) return f;
    struct device_function *function = calloc(1, sizeof *function);
    if (!function || !(function->entry = strdup(entry))) {
        free(function);
        error_set(error, "out of memory");
        return NULL;
    }
    function->module = module;
    function->shared_bytes = shared_bytes;
    if (cuda_check(driver.module_function(&function->handle, module->handle, entry), entry, error) ||
        allow_shared(function->handle, shared_bytes, entry, error)) {
        error_prefix(error, "%s", module->source);
        free(function->entry);
        free(function);
        return NULL;
    }
    function->next = state->functions;
    return state->functions = function;
}

static int cuda_function(struct device *device, const char *source, const char *entry, const char *options,
                         size_t shared_bytes, struct device_function **function, struct error *error) {
    struct state *state = state_of(device);
    void *cubin = NULL;
    size_t bytes;
    if (cuda_enter(device, error)) return -1;
    pthread_mutex_lock(&state->mutex);
    struct module *module = find_module(state, source, options);
    if (!module) {
        /* Others may look up and load while this one compiles. */
        pthread_mutex_unlock(&state->mutex);
        if (refuse_recording(device, source, error)) return -1;
        if (cuda_compile(source, options, device->architecture, &cubin, &bytes, error)) return -1;
        pthread_mutex_lock(&state->mutex);
        module = find_module(state, source, options);
        if (!module) module = load_module(state, source, options, cubin, error);
    }
    *function = module ? find_function(state, module, entry, shared_bytes, error) : NULL;
    pthread_mutex_unlock(&state->mutex);
    free(cubin);
    return *function ? 0 : -1;
}

static int cuda_launch(struct device *device, const struct device_function *function, const struct device_grid *grid,
                       const void *arguments, struct error *error) {
    if (cuda_enter(device, error)) return -1;
    void *parameters[] = {(void *)(uintptr_t)arguments};
    const unsigned *blocks = grid->blocks;
    CUlaunchAttribute attributes[2];
    CUlaunchConfig config = {.gridDimX = blocks[0],
                             .gridDimY = blocks[1],
                             .gridDimZ = blocks[2],
                             .blockDimX = grid->threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .sharedMemBytes = (unsigned)function->shared_bytes,
                             .hStream = cuda_stream(device),
                             .attrs = attributes};
    if (grid->cluster > 1)
        attributes[config.numAttrs++] =
            (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value.clusterDim = {grid->cluster, 1, 1}};
    bool overlaps = grid->overlaps && device->overlap != OVERLAP_NOTHING && !state_of(device)->apart;
    if (overlaps && device->compute_capability >= 90)
        attributes[config.numAttrs++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                                            .value.programmaticStreamSerializationAllowed = 1};
    state_of(device)->apart = false;
    CUresult result = driver.launch(&config, function->handle, parameters, NULL);
    if (result == CUDA_SUCCESS) return 0;
    cuda_check(result, "launch", error);
    return error_prefix(error, "%s in %s, grid %u x %u x %u, %u threads, clusters of %u, %zu bytes of shared memory",
                        function->entry, function->module->source, blocks[0], blocks[1], blocks[2], grid->threads,
                        grid->cluster > 1 ? grid->cluster : 1, function->shared_bytes);
}

static int cuda_tensor_map(struct device *device, const struct device_tensor *t, const void *memory,
                           struct device_tensor_map *map, struct error *error) {
    static const CUtensorMapDataType types[] = {[1] = CU_TENSOR_MAP_DATA_TYPE_UINT8,
                                                [2] = CU_TENSOR_MAP_DATA_TYPE_UINT16,
                                                [4] = CU_TENSOR_MAP_DATA_TYPE_UINT32,
                                                [8] = CU_TENSOR_MAP_DATA_TYPE_UINT64};
    _Static_assert(sizeof *map == sizeof(CUtensorMap), "a kernel is passed the driver's own");
    const cuuint64_t sides[] = {t->columns, t->rows}, row_bytes[] = {t->columns * (size_t)t->element_bytes};
    const cuuint32_t box[] = {(cuuint32_t)t->box_columns, (cuuint32_t)t->box_rows}, every[] = {1, 1};
    if (cuda_enter(device, error)) return -1;
    CUresult result = driver.tensor_map((CUtensorMap *)map, types[t->element_bytes], 2, (void *)(uintptr_t)memory,
                                        sides, row_bytes, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                        t->swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS) return 0;
    cuda_check(result, "describing a matrix", error);
    return error_prefix(error, "%zu x %zu of %d bytes in boxes of %d x %d", t->rows, t->columns, t->element_bytes,
                        t->box_rows, t->box_columns);
}

static int cuda_mark(struct device *device, int which, struct error *error) {
    struct state *state = state_of(device);
    if (refuse_recording(device, "recording an event", error) || cuda_enter(device, error)) return -1;
    return cuda_check(driver.event_record(state->events[which], state->stream), "recording an event", error);
}

static int cuda_elapsed(struct device *device, int from, int to, double *microseconds, struct error *error) {
    const CUevent first = state_of(device)->events[from], last = state_of(device)->events[to];
    float milliseconds = 0;
    if (refuse_recording(device, "waiting for an event", error) || cuda_enter(device, error)) return -1;
    if (cuda_check(driver.event_synchronize(first), "waiting for an event", error)) return -1;
    if (cuda_check(driver.event_synchronize(last), "waiting for an event", error)) return -1;
    if (cuda_check(driver.event_elapsed(&milliseconds, first, last), "reading events", error)) return -1;
    *microseconds = milliseconds * 1e3;
    return 0;
}

/* --- graphs --- */

/* Other threads may load code meanwhile; this one is watched for calls that a capture forbids. */
static int begin_capture(struct device *device, struct error *error) {
    const CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    if (refuse_recording(device, "recording a graph", error) || cuda_enter(device, error) ||
        cuda_check(driver.capture_begin(cuda_stream(device), mode), "beginning to record a graph", error))
        return -1;
    state_of(device)->recording = true;
    return 0;
}

static int end_capture(struct device *device, CUgraph *captured, struct error *error) {
    state_of(device)->recording = false;
    if (cuda_enter(device, error)) return -1;
    return cuda_check(driver.capture_end(cuda_stream(device), captured), "recording a graph", error);
}

/* The streams from begin to end of their captures, which end whatever happens in between. */
static int capture(struct device *const *devices, int count, device_enqueue *enqueue, void *context, CUgraph *captured,
                   struct error *error) {
    int begun = 0;
    while (begun < count && !begin_capture(devices[begun], error)) begun++;
    int status = begun < count ? -1 : enqueue(context, error);
    for (int i = 0; i < begun; i++)
        if (end_capture(devices[i], &captured[i], status ? NULL : error)) status = -1;
    return status;
}

static int instantiate(struct device *device, CUgraph captured, struct device_graph **result, struct error *error) {
    struct device_graph *graph = calloc(1, sizeof *graph);
    if (!graph) return error_set(error, "out of memory");
    if (cuda_enter(device, error) ||
        cuda_check(driver.graph_instantiate(&graph->handle, captured, 0), "making a graph", error)) {
        free(graph);
        return -1;
    }
    *result = graph;
    return 0;
}

static int cuda_graph_record(struct device *const *devices, int count, device_enqueue *enqueue, void *context,
                             struct device_graph **graphs, struct error *error) {
    CUgraph *captured = calloc((size_t)count, sizeof *captured);
    if (!captured) return error_set(error, "out of memory");
    int status = capture(devices, count, enqueue, context, captured, error);
    for (int i = 0; i < count; i++) {
        if (!status) status = instantiate(devices[i], captured[i], &graphs[i], error);
        if (captured[i]) driver.capture_release(captured[i]);
    }
    free(captured);
    return status;
}

static int cuda_graph_launch(struct device *device, const struct device_graph *graph, struct error *error) {
    if (refuse_recording(device, "launching a graph", error) || cuda_enter(device, error)) return -1;
    return cuda_check(driver.graph_launch(graph->handle, cuda_stream(device)), "launching a graph", error);
}

static void cuda_graph_destroy(struct device *device, struct device_graph *graph) {
    if (!cuda_enter(device, NULL)) {
        driver.stream_synchronize(cuda_stream(device));
        driver.graph_release(graph->handle);
    }
    free(graph);
}

/* --- opening --- */

static void cuda_close(struct device *device) {
    struct state *state = state_of(device);
    if (!cuda_enter(device, NULL)) driver.stream_synchronize(state->stream);
    for (struct device_function *f = state->functions, *next; f; f = next) {
        next = f->next;
        free(f->entry);
        free(f);
    }
    for (struct module *module = state->modules, *next; module; module = next) {
        next = module->next;
        free_module(module);
    }
    for (int i = 0; i < DEVICE_MARKS; i++)
        if (state->events[i]) driver.event_destroy(state->events[i]);
    if (state->stream) driver.stream_destroy(state->stream);
    driver.context_release(state->device);
    pthread_mutex_destroy(&state->mutex);
    free(state);
}

static const struct device_functions functions = {
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .memory_free = cuda_memory_free,
    .alloc_host = cuda_alloc_host,
    .free_host = cuda_free_host,
    .write = cuda_write,
    .read = cuda_read,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .synchronize = cuda_synchronize,
    .function = cuda_function,
    .launch = cuda_launch,
    .tensor_map = cuda_tensor_map,
    .mark = cuda_mark,
    .elapsed = cuda_elapsed,
    .graph_record = cuda_graph_record,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
};

/* 0 where the driver does not say. */
static int attribute(CUdevice device, CUdevice_attribute which) {
    int value = 0;
    return driver.device_attribute(&value, which, device) ? 0 : value;
}

/* Dense fp16 multiplications and additions of one SM in one clock, from NVIDIA's architecture papers. */
static double matrix_rate(int compute_capability) {
    switch (compute_capability) {
    case 80:
        return 2048;
    case 90:
        return 4096;
    case 100:
    case 103:
        return 8192;
    default:
        return 1024;
    }
}

static void describe_uuid(CUdevice handle, struct device *device) {
    CUuuid uuid;
    if (driver.device_uuid(&uuid, handle)) return;
    size_t used = (size_t)snprintf(device->uuid, sizeof device->uuid, "GPU-");
    for (int i = 0; i < 16; i++)
        used += (size_t)snprintf(device->uuid + used, sizeof device->uuid - used, "%s%02x",
                                 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", (unsigned char)uuid.bytes[i]);
}

static void describe(CUdevice handle, const char *nvrtc, struct device *device) {
    int major = attribute(handle, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    int minor = attribute(handle, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    double clock_hz = attribute(handle, CU_DEVICE_ATTRIBUTE_CLOCK_RATE) * 1e3;
    double memory_hz = attribute(handle, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) * 1e3;
    snprintf(device->id, sizeof device->id, "cuda:%d", device->index);
    driver.device_name(device->name, sizeof device->name, handle);
    driver.device_memory(&device->memory_bytes, handle);
    describe_uuid(handle, device);
    device->compute_capability = 10 * major + minor;
    /* Only sm_90 has instructions (wgmma) that its plain name leaves out and that kernels here may use. */
    snprintf(device->architecture, sizeof device->architecture, "sm_%d%s", device->compute_capability,
             device->compute_capability == 90 ? "a" : "");
    snprintf(device->software, sizeof device->software, "%s, %s", driver.text, nvrtc);
    snprintf(device->kernels, sizeof device->kernels, "%s", kernels_hash_cuda);
    device->multiprocessors = attribute(handle, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    device->cache_bytes = (size_t)attribute(handle, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    device->shared_block_bytes = (size_t)attribute(handle, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    device->shared_sm_bytes = (size_t)attribute(handle, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    /* Two transfers a clock, 8 bits a byte. */
    device->memory_gbs = 2 * memory_hz * attribute(handle, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8 / 1e9;
    device->matrix_tflops = clock_hz * device->multiprocessors * matrix_rate(device->compute_capability) / 1e12;
}

static int create_state(CUdevice handle, struct device *device, struct error *error) {
    struct state *state = calloc(1, sizeof *state);
    if (!state) return error_set(error, "out of memory");
    state->device = handle;
    if (cuda_check(driver.context_retain(&state->context, handle), "creating a context", error)) {
        free(state);
        return -1;
    }
    pthread_mutex_init(&state->mutex, NULL);
    device->state = state;
    device->functions = &functions;
    int failed = cuda_enter(device, error) ||
                 cuda_check(driver.stream_create(&state->stream, CU_STREAM_NON_BLOCKING), "creating a stream", error);
    for (int i = 0; !failed && i < DEVICE_MARKS; i++)
        failed = cuda_check(driver.event_create(&state->events[i], CU_EVENT_DEFAULT), "creating an event", error);
    if (!failed) return 0;
    cuda_close(device);
    return -1;
}

int cuda_open(int index, struct device *device, struct error *error) {
    char nvrtc[24];
    CUdevice handle;
    int count = cuda_count(error);
    if (count == 0) return -1;
    if (index >= count)
        return error_set(error, "there is no such GPU; cuda:0 is the first and this machine has %d", count);
    if (nvrtc_open(nvrtc, error)) return -1;
    if (cuda_check(driver.device_get(&handle, index), "opening the GPU", error)) return -1;
    *device = (struct device){.backend = BACKEND_CUDA, .index = index};
    describe(handle, nvrtc, device);
    if (device->compute_capability < 80)
        return error_set(error, "%s has compute capability %d.%d; the kernels need 8.0 or newer", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    return create_state(handle, device, error);
}
