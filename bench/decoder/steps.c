#include "bench/decoder/steps.h"

#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

struct steps {
    struct device *device;
    int most, count;
    struct ops_sequence *sequences; /* device (most) */
    struct ops_sequence *start;     /* host (most) */
    int32_t *ring;                  /* host (OPS_RING, count) */
    struct device_graph **graphs;   /* (most): for count - 1 */
    const void **workspaces;        /* (most): with which they were recorded */
    int enqueued, taken;            /* steps since steps_begin */
    double ended[DEVICE_MARKS];     /* seconds, of the CPU: when steps_begin or a step ended */
};

int steps_create(struct device *device, int most, struct steps **result, struct error *error) {
    size_t count = (size_t)most;
    struct steps *steps = *result = calloc(1, sizeof *steps);
    if (!steps) return error_set(error, "out of memory");
    *steps = (struct steps){.device = device, .most = most};
    steps->start = calloc(count, sizeof *steps->start);
    steps->graphs = calloc(count, sizeof *steps->graphs);
    steps->workspaces = calloc(count, sizeof *steps->workspaces);
    if (!steps->start || !steps->graphs || !steps->workspaces) return error_set(error, "out of memory");
    steps->sequences = device_alloc(device, count * sizeof *steps->sequences, error);
    if (!steps->sequences) return -1;
    steps->ring = device_alloc_host(device, OPS_RING * count * sizeof *steps->ring, error);
    return steps->ring ? 0 : -1;
}

void steps_forget(struct steps *steps) {
    for (int i = 0; steps->graphs && i < steps->most; i++) {
        device_graph_destroy(steps->device, steps->graphs[i]);
        steps->graphs[i] = NULL;
    }
}

void steps_destroy(struct steps *steps) {
    if (!steps) return;
    steps_forget(steps);
    device_free(steps->device, steps->sequences);
    device_free_host(steps->device, steps->ring);
    free(steps->start);
    free(steps->graphs);
    free(steps->workspaces);
    free(steps);
}

struct ops_sequence *steps_sequences(const struct steps *steps) {
    return steps->sequences;
}

int32_t *steps_ring(const struct steps *steps) {
    return steps->ring;
}

/* The end of step `step`, counted from 1; 0 is steps_begin. */
static int mark(struct steps *steps, int step, struct error *error) {
    if (steps->device->backend != BACKEND_CPU) return device_mark(steps->device, step % DEVICE_MARKS, error);
    steps->ended[step % DEVICE_MARKS] = measure_now();
    return 0;
}

int steps_begin(struct steps *steps, const int *slots, const int *ids, const int *positions, int count,
                struct error *error) {
    for (int i = 0; i < count; i++)
        steps->start[i] =
            (struct ops_sequence){.token = ids[i], .position = positions[i], .slot = slots ? slots[i] : i};
    steps->count = count;
    steps->enqueued = steps->taken = 0;
    size_t bytes = (size_t)count * sizeof *steps->start;
    if (device_write(steps->device, steps->sequences, steps->start, bytes, error)) return -1;
    return mark(steps, 0, error);
}

int steps_record(struct steps *steps, int count, device_enqueue *enqueue, void *context, const void *workspace,
                 struct error *error) {
    struct device *device = steps->device;
    struct device_graph **graph = &steps->graphs[count - 1];
    if (device->backend == BACKEND_CPU || (*graph && steps->workspaces[count - 1] == workspace)) return 0;
    device_graph_destroy(device, *graph);
    device_overlap(device, OVERLAP_WEIGHTS);
    int status = device_graph_record(device, enqueue, context, graph, error);
    device_overlap(device, OVERLAP_NOTHING);
    steps->workspaces[count - 1] = workspace;
    return status;
}

/* Steps that are enqueued and not taken. */
static int waiting(const struct steps *steps) {
    return steps->enqueued - steps->taken;
}

int steps_run(struct steps *steps, bool singly, device_enqueue *enqueue, void *context, struct error *error) {
    if (waiting(steps) == OPS_RING)
        return error_set(error, "%d steps wait to be taken; no more can be enqueued", OPS_RING);
    const struct device_graph *graph = steps->graphs[steps->count - 1];
    if (graph && !singly ? device_graph_launch(steps->device, graph, error) : enqueue(context, error)) return -1;
    return mark(steps, ++steps->enqueued, error);
}

/* Seconds between the ends of two steps. */
static int between(const struct steps *steps, int from, int to, double *seconds, struct error *error) {
    from %= DEVICE_MARKS;
    to %= DEVICE_MARKS;
    *seconds = steps->ended[to] - steps->ended[from];
    if (steps->device->backend == BACKEND_CPU) return 0;
    if (device_elapsed(steps->device, from, to, seconds, error)) return -1;
    *seconds *= 1e-6;
    return 0;
}

int steps_take(struct steps *steps, int *ids, double *seconds, struct error *error) {
    if (!waiting(steps)) return error_set(error, "no step waits to be taken");
    if (between(steps, steps->taken, steps->taken + 1, seconds, error)) return -1;
    size_t row = (size_t)(steps->taken++ % OPS_RING) * (size_t)steps->count;
    memcpy(ids, steps->ring + row, (size_t)steps->count * sizeof *ids);
    return 0;
}
