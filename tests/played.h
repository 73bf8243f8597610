/* A CPU that plays graphs and the small kernels of a chain (bench/chain.cu), whose residual stream is one block wide.
 */
#ifndef TILEBOOK_TESTS_PLAYED_H
#define TILEBOOK_TESTS_PLAYED_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/half.h"

struct device_function {
    char entry[32];
};

struct device_graph {
    device_enqueue *enqueue;
    void *context;
};

static struct device_functions played;
static int launched;
static bool in_graph;           /* that runs */
static int graphs, spoilt_from; /* launches of graphs; from this one on they leave something else; 0: none does */
static bool spoil, overlapped;  /* in a launch that does; in the last recording */

static int play_function(struct device *d, const char *source, const char *entry, const char *options,
                         size_t shared_bytes, struct device_function **function, struct error *error) {
    static struct device_function norm = {"chain_norm"}, attend = {"chain_attend"};
    (void)d, (void)shared_bytes;
    *function = strcmp(entry, norm.entry) ? &attend : &norm;
    if (!strcmp(source, "chain.cu") && !strcmp(options, "-DBLOCK=512 -DKEPT=1")) return 0;
    return error_set(error, "%s with %s is not played", source, options);
}

static void play_norm(const uint16_t *x, uint16_t *y, int width) {
    double squares = 0;
    for (int i = 0; i < width; i++) squares += pow(half_to_float(x[i]), 2);
    double scale = 1 / sqrt(squares / width + 1e-6);
    for (int i = 0; i < width; i++) y[i] = half_from_float((float)(half_to_float(x[i]) * scale));
}

static void play_attend(const uint16_t *x, uint16_t *y, int from, int to) {
    for (int i = 0; i < to; i++) {
        int vector = i / 8 % (from / 8), last = from / 8 - 1 - vector;
        y[i] = half_from_float((half_to_float(x[8 * vector + i % 8]) + half_to_float(x[8 * last + i % 8])) / 2);
    }
}

/* As chain.c passes them. */
struct arguments_of_chain {
    const uint16_t *x;
    uint16_t *y;
    int from, to;
};

static int play_launch(struct device *d, const struct device_function *function, const struct device_grid *grid,
                       const void *arguments, struct error *error) {
    (void)d, (void)error;
    bool norm = !strcmp(function->entry, "chain_norm");
    struct arguments_of_chain a = {0};
    memcpy(&a, arguments, norm ? offsetof(struct arguments_of_chain, to) : sizeof a);
    int rows = (int)grid->blocks[norm ? 0 : 1], from = 8 * a.from, to = 8 * a.to;
    assert_true(grid->overlaps && grid->threads == 512);
    assert_true(norm || grid->blocks[0] * 512 * 8 >= (unsigned)to);
    launched++;
    for (int r = 0; r < rows; r++) {
        if (norm)
            play_norm(a.x + r * from, a.y + r * from, from);
        else
            play_attend(a.x + r * from, a.y + r * to, from, to);
    }
    if (spoil) a.y[0] ^= 0x0400;
    return 0;
}

static int play_record(struct device *const *devices, int count, device_enqueue *enqueue, void *context,
                       struct device_graph **graph, struct error *error) {
    (void)error;
    assert_int_equal(count, 1);
    *graph = malloc(sizeof **graph);
    assert_non_null(*graph);
    **graph = (struct device_graph){enqueue, context};
    overlapped = devices[0]->overlap;
    return 0;
}

static int play_graph(struct device *d, const struct device_graph *graph, struct error *error) {
    assert_false(d->overlap);
    spoil = spoilt_from && ++graphs >= spoilt_from;
    in_graph = true;
    int result = graph->enqueue(graph->context, error);
    in_graph = spoil = false;
    return result;
}

static void play_destroy(struct device *d, struct device_graph *graph) {
    (void)d;
    free(graph);
}

/* The device, which is a CPU, with these in place of what it lacks. */
static inline void play(struct device *device) {
    played = *device->functions;
    played.function = play_function;
    played.launch = play_launch;
    played.graph_record = play_record;
    played.graph_launch = play_graph;
    played.graph_destroy = play_destroy;
    device->functions = &played;
}

#endif
