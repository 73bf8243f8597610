/* The number that a decoder lives on: all layers' GEMMs in their order, each with its own weights, with the small
 * dependent kernels between them, as one graph. Needs a GPU.
 *
 *   residual -> norm -> qkv (bias) -> attention's stand-in -> o (+ residual)
 *            -> norm -> gate_up (SiLU and multiply) -> down (+ residual) -> residual */
#ifndef TILEBOOK_CHAIN_H
#define TILEBOOK_CHAIN_H

#include "bench/measure.h"
#include "bench/shapes.h"

enum { CHAIN_QKV, CHAIN_O, CHAIN_GATE_UP, CHAIN_DOWN, CHAIN_GEMMS };
/* "qkv", ... as the shapes of a model have them. */
extern const char *const chain_layers[CHAIN_GEMMS];

struct chain_gemm {
    struct problem problem;
    const struct kernel *kernel; /* NULL: none yet */
    struct config config;
};

/* The problems of a layer, M rows each, with the decoder's epilogues. -1 unless the shapes are a model's and
 * the op takes them. */
int chain_problems(const struct shapes *shapes, enum op op, int m, int group, bool zeros,
                   struct problem problems[CHAIN_GEMMS], struct error *error);

struct chain;

/* Random weights for all layers; each kernel is verified against the reference on the first layer's. A GEMM without a
 * kernel gets one by chain_replace, before anything is measured. */
int chain_create(struct device *device, const struct chain_gemm gemms[CHAIN_GEMMS], int layers, uint64_t seed,
                 struct chain **chain, struct error *error);
/* Another kernel for one of the GEMMs, in all layers, verified likewise. After a failure the chain can only be
 * destroyed. */
int chain_replace(struct chain *chain, int gemm, const struct kernel *kernel, const struct config *config,
                  struct error *error);
void chain_destroy(struct chain *chain);
/* The largest relative error that verifying found. */
double chain_error(const struct chain *chain);
/* Times the whole chain as a graph, REGIME_GRAPH or REGIME_PDL. Before and after that it must leave bit by bit the
 * activations that its kernels leave one by one in the stream, all finite; else -1. */
int chain_measure(struct chain *chain, enum regime regime, const struct measure_options *options,
                  struct measurement *measurement, struct error *error);

/* What a time means. */
struct chain_figures {
    double us_layer;
    double weight_bytes; /* codes, scales and zero points (or fp16 weights) of all layers */
    double gbs;          /* those over the time */
    double tokens_s;     /* M tokens a pass: a bound, without attention and head */
};
struct chain_figures chain_figures(const struct chain_gemm gemms[CHAIN_GEMMS], int layers, double us);

#endif
