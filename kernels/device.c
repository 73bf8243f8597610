#include "kernels/device.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#ifdef TILEBOOK_CUDA
#include "kernels/cuda/driver.h"
#else
static int cuda_count(struct error *why) {
    error_set(why, "this build has no CUDA backend; for one install the CUDA Toolkit (12.4 or newer), then run "
                   "`make clean` and `make CUDA_HOME=...`");
    return 0;
}

static int cuda_open(int index, struct device *device, struct error *error) {
    (void)index, (void)device;
    cuda_count(error);
    return -1;
}

static int cuda_compile(const char *source, const char *options, const char *architecture, void **cubin, size_t *bytes,
                        struct error *error) {
    (void)source, (void)options, (void)architecture, (void)cubin, (void)bytes;
    cuda_count(error);
    return -1;
}
#endif

int device_cuda_count(struct error *why) {
    return cuda_count(why);
}

/* "cuda:N" with one to three digits; -1 for anything else. */
static int parse_cuda_index(const char *id) {
    if (strncmp(id, "cuda:", 5) || !isdigit((unsigned char)id[5]) || strlen(id) > 8) return -1;
    char *end;
    long index = strtol(id + 5, &end, 10);
    return *end ? -1 : (int)index;
}

int device_check_id(const char *id, struct error *error) {
    if (!strcmp(id, "cpu") || !strcmp(id, "auto") || parse_cuda_index(id) >= 0) return 0;
    return error_set(error,
                     "unknown device '%s'; accepted: cpu, cuda:N (cuda:0 is the first GPU) or auto; "
                     "`tilebook devices` lists what is here",
                     id);
}

static int open_backend(const char *id, struct device *device, struct error *error) {
    if (device_check_id(id, error)) return -1;
    int index = parse_cuda_index(id);
    if (index >= 0) {
        struct error cause;
        if (!cuda_open(index, device, &cause)) return 0;
        return error_set(error, "%s: %s; `--device cpu` works", id, cause.text);
    }
    if (!strcmp(id, "auto")) {
        if (!cuda_open(0, device, NULL)) return 0;
        *device = (struct device){0};
        return cpu_open(device, error);
    }
    return cpu_open(device, error);
}

int device_open(const char *id, struct device **result, struct error *error) {
    *result = NULL;
    struct device *device = calloc(1, sizeof *device);
    if (!device) return error_set(error, "out of memory");
    if (open_backend(id, device, error)) {
        free(device);
        return -1;
    }
    *result = device;
    return 0;
}

void device_close(struct device *device) {
    if (!device) return;
    device->functions->close(device);
    free(device);
}

void *device_alloc(struct device *device, size_t bytes, struct error *error) {
    return device->functions->alloc(device, bytes, error);
}

void device_free(struct device *device, void *memory) {
    if (memory) device->functions->free(device, memory);
}

size_t device_memory_free(struct device *device) {
    return device->functions->memory_free(device);
}

void *device_alloc_host(struct device *device, size_t bytes, struct error *error) {
    return device->functions->alloc_host(device, bytes, error);
}

void device_free_host(struct device *device, void *memory) {
    if (memory) device->functions->free_host(device, memory);
}

int device_write(struct device *device, void *to, const void *from_host, size_t bytes, struct error *error) {
    return bytes ? device->functions->write(device, to, from_host, bytes, error) : 0;
}

int device_read(struct device *device, void *to_host, const void *from, size_t bytes, struct error *error) {
    return bytes ? device->functions->read(device, to_host, from, bytes, error) : 0;
}

int device_copy(struct device *device, void *to, const void *from, size_t bytes, struct error *error) {
    return bytes ? device->functions->copy(device, to, from, bytes, error) : 0;
}

int device_fill(struct device *device, void *to, unsigned char byte, size_t bytes, struct error *error) {
    return bytes ? device->functions->fill(device, to, byte, bytes, error) : 0;
}

int device_synchronize(struct device *device, struct error *error) {
    return device->functions->synchronize(device, error);
}

int device_function(struct device *device, const char *source, const char *entry, const char *options,
                    size_t shared_bytes, struct device_function **function, struct error *error) {
    *function = NULL;
    if (!device->functions->function)
        return error_set(error, "device %s runs no device code; %s needs cuda:N", device->id, source);
    return device->functions->function(device, source, entry, options, shared_bytes, function, error);
}

int device_compile(const struct device *device, const char *source, const char *options, struct error *error) {
    void *cubin;
    size_t bytes;
    if (cuda_compile(source, options, device->architecture, &cubin, &bytes, error)) return -1;
    free(cubin);
    return 0;
}

int device_launch(struct device *device, const struct device_function *function, const struct device_grid *grid,
                  const void *arguments, struct error *error) {
    return device->functions->launch(device, function, grid, arguments, error);
}

int device_tensor_map(struct device *device, const struct device_tensor *tensor, const void *memory,
                      struct device_tensor_map *map, struct error *error) {
    return device->functions->tensor_map(device, tensor, memory, map, error);
}

void device_overlap(struct device *device, enum device_overlap overlap) {
    device->overlap = overlap;
}

enum device_overlap device_limit_overlap(struct device *device, enum device_overlap most) {
    enum device_overlap before = device->overlap;
    if (before > most) device->overlap = most;
    return before;
}

int device_mark(struct device *device, int which, struct error *error) {
    if (!device->functions->mark) return error_set(error, "device %s has no events", device->id);
    return device->functions->mark(device, which, error);
}

int device_elapsed(struct device *device, int from, int to, double *microseconds, struct error *error) {
    if (!device->functions->elapsed) return error_set(error, "device %s has no events", device->id);
    return device->functions->elapsed(device, from, to, microseconds, error);
}

int device_marked(struct device *device, double *microseconds, struct error *error) {
    return device_elapsed(device, 0, 1, microseconds, error);
}

int device_graph_record(struct device *device, device_enqueue *enqueue, void *context, struct device_graph **graph,
                        struct error *error) {
    return device_graphs_record(&device, 1, enqueue, context, graph, error);
}

int device_graphs_record(struct device *const *devices, int count, device_enqueue *enqueue, void *context,
                         struct device_graph **graphs, struct error *error) {
    const struct device *first = devices[0];
    for (int i = 0; i < count; i++) graphs[i] = NULL;
    if (!first->functions->graph_record)
        return error_set(error, "device %s records no graphs; they need cuda:N", first->id);
    if (!first->functions->graph_record(devices, count, enqueue, context, graphs, error)) return 0;
    for (int i = 0; i < count; i++) {
        device_graph_destroy(devices[i], graphs[i]);
        graphs[i] = NULL;
    }
    return -1;
}

int device_graph_launch(struct device *device, const struct device_graph *graph, struct error *error) {
    return device->functions->graph_launch(device, graph, error);
}

void device_graph_destroy(struct device *device, struct device_graph *graph) {
    if (graph) device->functions->graph_destroy(device, graph);
}
