#include "bench/context.h"

#include <stdio.h>

static char *add(struct context *context, const char *key, bool identity) {
    int i = context->count++;
    context->entries[i].key = key;
    context->entries[i].identity = identity;
    return context->entries[i].value;
}

static void add_text(struct context *context, const char *key, const char *value) {
    snprintf(add(context, key, true), NVML_STATE, "%s", value);
}

static void add_figure(struct context *context, const char *key, double value) {
    snprintf(add(context, key, false), NVML_STATE, "%.6g", value);
}

void context_of(const struct sweep *sweep, struct context *context) {
    const struct device *device = sweep->device;
    bool gpu = device->backend == BACKEND_CUDA;
    context->count = 0;
    add_text(context, "device", device->name);
    add_text(context, "uuid", device->uuid);
    add_text(context, "architecture", device->architecture);
    snprintf(add(context, "multiprocessors", true), NVML_STATE, "%d", device->multiprocessors);
    add_text(context, "software", device->software);
    add_text(context, "cupti", !gpu ? "none" : *cupti_version() ? cupti_version() : "not attached");
    add_text(context, "kernels", device->kernels);
    add_text(context, "launch", sweep->chains ? "graph, pdl" : gpu ? regime_name(sweep->measuring.regime) : "call");
    char pace[32] = "back to back";
    if (sweep->measuring.pace > 0) snprintf(pace, sizeof pace, "%g", sweep->measuring.pace);
    add_text(context, "pace", pace);
    add_text(context, "cache", sweep->options.cold ? "cold" : "warm");
    add_text(context, "data", "uniform");
    snprintf(add(context, "seed", true), NVML_STATE, "%llu", (unsigned long long)sweep->options.seed);
    add_figure(context, "read_gbs", sweep->ceilings.read_gbs);
    add_figure(context, "copy_gbs", sweep->ceilings.copy_gbs);
    add_figure(context, "matrix_tflops", sweep->ceilings.matrix_tflops);
    char *state = add(context, "state", false);
    if (gpu)
        nvml_state_text(&sweep->ceilings.state, state);
    else
        snprintf(state, NVML_STATE, "none");
}
