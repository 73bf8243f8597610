#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "kernels/reference.h"

/* A ceiling is the best of a few passes: what the memory can do, not what it does on average. */
enum {
    PASSES = 8,
    GPU_BLOCKS_PER_SM = 2,
    GPU_THREADS = 1024,
    GPU_VECTORS_IN_FLIGHT = 8,
    GPU_CUBE = 4096,
    CPU_CUBE = 512
};
static const size_t gpu_bytes = (size_t)4 << 30, cpu_bytes = (size_t)128 << 20;

/* --- GPU: events, since a pass takes milliseconds --- */

static int time_pass(struct device *device, int (*pass)(struct device *, void *, struct error *), void *data,
                     double *least_us, struct error *error) {
    *least_us = INFINITY;
    for (int i = 0; i < PASSES; i++) {
        double us;
        if (device_mark(device, 0, error) || pass(device, data, error) || device_mark(device, 1, error)) return -1;
        if (device_marked(device, &us, error)) return -1;
        *least_us = fmin(*least_us, us);
    }
    return 0;
}

/* As ceilings.cu has it. */
struct read_arguments {
    const void *from;
    unsigned long long count;
    unsigned *sink;
};

struct gpu_memory {
    const struct device_function *function;
    char *buffer;
    size_t bytes;
    unsigned *sink;
};

static int read_pass(struct device *device, void *data, struct error *error) {
    const struct gpu_memory *memory = data;
    struct read_arguments arguments = {memory->buffer, memory->bytes / 16, memory->sink};
    const struct device_grid grid = {.blocks = {(unsigned)(device->multiprocessors * GPU_BLOCKS_PER_SM), 1, 1},
                                     .threads = GPU_THREADS};
    return device_launch(device, memory->function, &grid, &arguments, error);
}

static int copy_pass(struct device *device, void *data, struct error *error) {
    const struct gpu_memory *memory = data;
    size_t half = memory->bytes / 2;
    return device_copy(device, memory->buffer + half, memory->buffer, half, error);
}

/* At most half of the free memory, in whole rounds of the grid. */
static size_t gpu_bytes_wanted(struct device *device) {
    size_t round = (size_t)device->multiprocessors * GPU_BLOCKS_PER_SM * GPU_THREADS * GPU_VECTORS_IN_FLIGHT * 16;
    size_t room = device_memory_free(device) / 2, bytes = room < gpu_bytes ? room : gpu_bytes;
    return bytes < round ? round : bytes / round * round;
}

static int gpu_passes(struct device *device, struct gpu_memory *memory, struct ceilings *ceilings,
                      struct error *error) {
    double read_us, copy_us;
    if (reference_fill_bits(device, memory->buffer, memory->bytes, 1, error)) return -1;
    if (time_pass(device, read_pass, memory, &read_us, error)) return -1;
    if (time_pass(device, copy_pass, memory, &copy_us, error)) return -1;
    ceilings->read_gbs = (double)memory->bytes / read_us / 1e3;
    ceilings->copy_gbs = (double)memory->bytes / copy_us / 1e3;
    return 0;
}

static int gpu_bandwidth(struct device *device, struct ceilings *ceilings, struct error *error) {
    struct device_function *function;
    if (device_function(device, "ceilings.cu", "ceiling_read", "", 0, &function, error)) return -1;
    struct gpu_memory memory = {.function = function, .bytes = gpu_bytes_wanted(device)};
    memory.buffer = device_alloc(device, memory.bytes + sizeof *memory.sink, error);
    if (!memory.buffer) return -1;
    memory.sink = (unsigned *)(memory.buffer + memory.bytes);
    int result = gpu_passes(device, &memory, ceilings, error);
    device_free(device, memory.buffer);
    return result;
}

/* --- CPU: as many threads as cores, each on its own part --- */

typedef uint64_t vector __attribute__((vector_size(64)));

struct part {
    char *from, *to; /* 64-byte aligned; `to` NULL: only read */
    size_t bytes;    /* a multiple of 256 */
    vector seen;
};

static void *run_part(void *data) {
    struct part *part = data;
    const vector *from = (const vector *)part->from;
    vector seen[4] = {{0}};
    if (part->to) {
        memcpy(part->to, part->from, part->bytes);
        return NULL;
    }
    for (size_t i = 0; i < part->bytes / sizeof *from; i += 4)
        for (int j = 0; j < 4; j++) seen[j] |= from[i + (size_t)j];
    part->seen = seen[0] | seen[1] | seen[2] | seen[3];
    return NULL;
}

/* Seconds of one pass; a thread that cannot be had is replaced by this one. */
static double time_parts(struct part *parts, pthread_t *threads, int count) {
    double start = measure_now();
    int started = 1;
    while (started < count && !pthread_create(&threads[started], NULL, run_part, &parts[started])) started++;
    run_part(&parts[0]);
    for (int i = started; i < count; i++) run_part(&parts[i]);
    for (int i = 1; i < started; i++) pthread_join(threads[i], NULL);
    return measure_now() - start;
}

static double best_seconds(struct part *parts, pthread_t *threads, int count) {
    double least = INFINITY;
    for (int i = 0; i < PASSES; i++) least = fmin(least, time_parts(parts, threads, count));
    return least;
}

static void cpu_passes(struct part *parts, pthread_t *threads, int count, char *buffer, size_t bytes,
                       struct ceilings *ceilings) {
    size_t each = bytes / (size_t)count / 512 * 512, total = each * (size_t)count;
    for (int i = 0; i < count; i++) parts[i] = (struct part){.from = buffer + each * (size_t)i, .bytes = each};
    ceilings->read_gbs = (double)total / best_seconds(parts, threads, count) / 1e9;
    for (int i = 0; i < count; i++) {
        parts[i].bytes = each / 2;
        parts[i].to = parts[i].from + each / 2;
    }
    ceilings->copy_gbs = (double)total / best_seconds(parts, threads, count) / 1e9;
}

static int cpu_bandwidth(struct device *device, struct ceilings *ceilings, struct error *error) {
    int count = device->multiprocessors;
    size_t bytes = 4 * device->cache_bytes > cpu_bytes ? 4 * device->cache_bytes : cpu_bytes;
    char *buffer = device_alloc(device, bytes, error);
    struct part *parts = aligned_alloc(64, (size_t)count * sizeof *parts);
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    int result = buffer ? 0 : -1;
    if (buffer && (!parts || !threads)) result = error_set(error, "out of memory");
    if (!result) result = device_fill(device, buffer, 1, bytes, error);
    if (!result) cpu_passes(parts, threads, count, buffer, bytes, ceilings);
    free(parts);
    free(threads);
    device_free(device, buffer);
    return result;
}

/* --- both --- */

static int time_matrix(struct device *device, const struct kernel *kernel, const struct problem *problem,
                       struct ceilings *ceilings, struct error *error) {
    struct config config;
    struct instance *instance = NULL;
    struct plan *plan = NULL;
    struct measurement m;
    int result = -1;
    if (!config_default(device, kernel, problem, &config, error) &&
        !instance_create(device, problem, 1, false, &instance, error) &&
        !plan_create(device, kernel, problem, &config, &plan, error) && !instance_fit(instance, plan, error) &&
        !instance_verify(instance, plan, NULL, error) && !measure(instance, plan, &measure_quick, &m, error)) {
        ceilings->matrix_tflops = problem_flops(problem) / m.min_us / 1e6;
        ceilings->state = (struct gpu_state){m.sm_mhz, m.memory_mhz, m.celsius, m.watts, m.throttle};
        measurement_free(&m);
        result = 0;
    }
    plan_destroy(plan);
    instance_destroy(instance);
    return result;
}

/* cuBLASLt where it is, else the first fp16_gemm of the backend. */
static const struct kernel *matrix_kernel(enum backend backend) {
    const struct kernel *baseline = backend == BACKEND_CUDA ? kernel_find("fp16_gemm/cublaslt") : NULL;
    if (baseline) return baseline;
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
        if ((*kernel)->op == OP_FP16_GEMM && (*kernel)->backend == backend) return *kernel;
    return NULL;
}

int measure_bandwidth(struct device *device, struct ceilings *ceilings, struct error *error) {
    bool gpu = device->backend == BACKEND_CUDA;
    *ceilings = (struct ceilings){0};
    if (gpu ? gpu_bandwidth(device, ceilings, error) : cpu_bandwidth(device, ceilings, error))
        return error_prefix(error, "measuring the bandwidth");
    return 0;
}

int measure_ceilings(struct device *device, struct ceilings *ceilings, struct error *error) {
    int cube = device->backend == BACKEND_CUDA ? GPU_CUBE : CPU_CUBE;
    struct problem problem = {.op = OP_FP16_GEMM, .m = cube, .n = cube, .k = cube};
    const struct kernel *kernel = matrix_kernel(device->backend);
    if (!kernel) return error_set(error, "no fp16_gemm kernel for %s", device->id);
    if (measure_bandwidth(device, ceilings, error)) return -1;
    if (time_matrix(device, kernel, &problem, ceilings, error)) return error_prefix(error, "measuring the matrix rate");
    return 0;
}
