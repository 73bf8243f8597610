#include "bench/decoder/steps.h"

#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

/* A rank's. */
struct place {
    struct ops_sequence *sequences; /* device (most) */
    int32_t *ring;                  /* host (OPS_RING, count) */
};

struct steps {
    struct device **devices; /* (ranks) */
    int ranks, most, count;
    struct place *places;         /* (ranks) */
    struct ops_sequence *start;   /* host (most) */
    struct device_graph **graphs; /* (most, ranks): row count - 1 */
    const void **workspaces;      /* (most, ranks): with which they were recorded */
    int enqueued, taken;          /* steps since steps_begin */
    double ended[DEVICE_MARKS];   /* seconds, of the CPU: when steps_begin or a step ended */
};

int steps_create(struct device *const *devices, int ranks, int most, struct steps **result, struct error *error) {
    size_t count = (size_t)most, all = count * (size_t)ranks;
    struct steps *steps = *result = calloc(1, sizeof *steps);
    if (!steps) return error_set(error, "out of memory");
    *steps = (struct steps){.ranks = ranks, .most = most};
    steps->devices = calloc((size_t)ranks, sizeof *steps->devices);
    steps->places = calloc((size_t)ranks, sizeof *steps->places);
    steps->start = calloc(count, sizeof *steps->start);
    steps->graphs = calloc(all, sizeof *steps->graphs);
    steps->workspaces = calloc(all, sizeof *steps->workspaces);
    if (!steps->devices || !steps->places || !steps->start || !steps->graphs || !steps->workspaces)
        return error_set(error, "out of memory");
    for (int i = 0; i < ranks; i++) {
        struct place *place = &steps->places[i];
        steps->devices[i] = devices[i];
        if (!(place->sequences = device_alloc(devices[i], count * sizeof *place->sequences, error)) ||
            !(place->ring = device_alloc_host(devices[i], OPS_RING * count * sizeof *place->ring, error)))
            return -1;
    }
    return 0;
}

/* Row `row` of the graphs. */
static void destroy_graphs(struct steps *steps, int row) {
    struct device_graph **graphs = steps->graphs + (size_t)row * (size_t)steps->ranks;
    for (int i = 0; i < steps->ranks; i++) {
        device_graph_destroy(steps->devices[i], graphs[i]);
        graphs[i] = NULL;
    }
}

void steps_forget(struct steps *steps) {
    for (int row = 0; steps->graphs && row < steps->most; row++) destroy_graphs(steps, row);
}

void steps_destroy(struct steps *steps) {
    if (!steps) return;
    steps_forget(steps);
    for (int i = 0; steps->places && i < steps->ranks; i++) {
        device_free(steps->devices[i], steps->places[i].sequences);
        device_free_host(steps->devices[i], steps->places[i].ring);
    }
    free(steps->devices);
    free(steps->places);
    free(steps->start);
    free(steps->graphs);
    free(steps->workspaces);
    free(steps);
}

struct ops_sequence *steps_sequences(const struct steps *steps, int rank) {
    return steps->places[rank].sequences;
}

int32_t *steps_ring(const struct steps *steps, int rank) {
    return steps->places[rank].ring;
}

static bool on_cpu(const struct steps *steps) {
    return steps->devices[0]->backend == BACKEND_CPU;
}

/* The end of step `step`, counted from 1; 0 is steps_begin. */
static int mark(struct steps *steps, int step, struct error *error) {
    int which = step % DEVICE_MARKS;
    steps->ended[which] = measure_now();
    for (int i = 0; i < steps->ranks && !on_cpu(steps); i++)
        if (device_mark(steps->devices[i], which, error)) return -1;
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
    for (int i = 0; i < steps->ranks; i++)
        if (device_write(steps->devices[i], steps->places[i].sequences, steps->start, bytes, error)) return -1;
    return mark(steps, 0, error);
}

static void allow_overlap(const struct steps *steps, enum device_overlap overlap) {
    for (int i = 0; i < steps->ranks; i++) device_overlap(steps->devices[i], overlap);
}

int steps_record(struct steps *steps, int count, device_enqueue *enqueue, void *context, const void *const *workspaces,
                 struct error *error) {
    size_t ranks = (size_t)steps->ranks, row = (size_t)(count - 1) * ranks;
    if (on_cpu(steps) ||
        (steps->graphs[row] && !memcmp(steps->workspaces + row, workspaces, ranks * sizeof *workspaces)))
        return 0;
    destroy_graphs(steps, count - 1);
    memcpy(steps->workspaces + row, workspaces, ranks * sizeof *workspaces);
    allow_overlap(steps, OVERLAP_WEIGHTS);
    int status = device_graphs_record(steps->devices, steps->ranks, enqueue, context, steps->graphs + row, error);
    allow_overlap(steps, OVERLAP_NOTHING);
    return status;
}

/* Steps that are enqueued and not taken. */
static int waiting(const struct steps *steps) {
    return steps->enqueued - steps->taken;
}

static int launch(struct steps *steps, struct device_graph *const *graphs, struct error *error) {
    for (int i = 0; i < steps->ranks; i++)
        if (device_graph_launch(steps->devices[i], graphs[i], error)) return -1;
    return 0;
}

int steps_run(struct steps *steps, bool singly, device_enqueue *enqueue, void *context, struct error *error) {
    if (waiting(steps) == OPS_RING)
        return error_set(error, "%d steps wait to be taken; no more can be enqueued", OPS_RING);
    struct device_graph *const *graphs = steps->graphs + (size_t)(steps->count - 1) * (size_t)steps->ranks;
    if (*graphs && !singly ? launch(steps, graphs, error) : enqueue(context, error)) return -1;
    return mark(steps, ++steps->enqueued, error);
}

/* Seconds on a rank between the ends of two steps, for which it waits. */
static int between(const struct steps *steps, int rank, int from, int to, double *seconds, struct error *error) {
    from %= DEVICE_MARKS;
    to %= DEVICE_MARKS;
    *seconds = steps->ended[to] - steps->ended[from];
    if (on_cpu(steps)) return 0;
    if (device_elapsed(steps->devices[rank], from, to, seconds, error)) return -1;
    *seconds *= 1e-6;
    return 0;
}

int steps_take(struct steps *steps, int *ids, double *seconds, struct error *error) {
    if (!waiting(steps)) return error_set(error, "no step waits to be taken");
    double others;
    int from = steps->taken, to = from + 1;
    size_t count = (size_t)steps->count, row = (size_t)(steps->taken++ % OPS_RING) * count;
    if (between(steps, 0, from, to, seconds, error)) return -1;
    memcpy(ids, steps->places[0].ring + row, count * sizeof *ids);
    for (int i = 1; i < steps->ranks; i++) {
        if (between(steps, i, from, to, &others, error)) return -1;
        if (memcmp(ids, steps->places[i].ring + row, count * sizeof *ids))
            return error_set(error, "rank %d (%s) chose other tokens than rank 0", i, steps->devices[i]->id);
    }
    return 0;
}
