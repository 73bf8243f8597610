#include <stdlib.h>
#include <string.h>

#include "bench/decoder/profile.h"

/* Parts that are added up: those of one kernel of an op, or of a layer. */
struct sum {
    int layer; /* of the first part */
    enum model_op op;
    const char *kernel; /* of the first part */
    int calls;
    double us, gap_us;
    double bytes; /* that the op, or the layer, has to read */
};

static double gbs(double bytes, double us) {
    return us > 0 ? bytes / us / 1e3 : 0;
}

static double bytes_of(const struct profile *p, const struct model *model, const struct profile_part *part) {
    return model_op_bytes(model, part->layer, part->op, (double)p->batch * p->positions);
}

static bool opens_op(const struct profile *p, int i) {
    return !i || p->parts[i].op != p->parts[i - 1].op || p->parts[i].layer != p->parts[i - 1].layer;
}

/* By op and kernel in the order of the first layer's, or by layer: the parts before the layers, each layer, those
 * behind. The caller frees. */
static struct sum *add_up(const struct profile *p, const struct model *model, bool layers, int *count) {
    struct sum *sums = calloc((size_t)p->count, sizeof *sums);
    *count = 0;
    for (int i = 0, at; sums && i < p->count; i++) {
        const struct profile_part *part = &p->parts[i];
        for (at = layers && *count ? *count - 1 : 0; at < *count; at++)
            if (layers ? sums[at].layer == part->layer
                       : sums[at].op == part->op && !strcmp(sums[at].kernel, part->kernel))
                break;
        if (at == *count) sums[(*count)++] = (struct sum){.layer = part->layer, .op = part->op, .kernel = part->kernel};
        sums[at].calls++;
        sums[at].us += part->us;
        sums[at].gap_us += part->gap_us;
        if (opens_op(p, i)) sums[at].bytes += bytes_of(p, model, part);
    }
    return sums;
}

/* Of all kernels of the op. */
static double op_gbs(const struct sum *sums, int count, enum model_op op) {
    double bytes = 0, us = 0;
    for (int i = 0; i < count; i++)
        if (sums[i].op == op) bytes += sums[i].bytes, us += sums[i].us;
    return gbs(bytes, us);
}

static void print_gbs(double value, FILE *stream) {
    if (value > 0)
        fprintf(stream, " %8.1f", value);
    else
        fprintf(stream, " %8s", "");
}

static void print_kernels(const struct profile *p, const struct model *model, FILE *stream) {
    int count;
    struct sum *sums = add_up(p, model, false, &count);
    double gaps = 0, bytes = 0;
    fprintf(stream, "\n%-10s %6s %10s %6s %9s %9s %8s  %s\n", "op", "calls", "us", "%", "us each", "gaps us", "GB/s",
            "kernel");
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i];
        fprintf(stream, "%-10s %6d %10.2f %6.2f %9.3f %9.2f", model_op_name(s->op), s->calls, s->us,
                100 * s->us / p->span_us, s->us / s->calls, s->gap_us);
        print_gbs(op_gbs(sums, count, s->op), stream);
        fprintf(stream, "  %s\n", s->kernel);
        gaps += s->gap_us;
        bytes += s->bytes;
    }
    fprintf(stream, "%-10s %6d %10.2f %6.2f %9s %9.2f %8.1f\n", "all", p->count, p->span_us, 100.0, "", gaps,
            gbs(bytes, p->span_us));
    free(sums);
}

static void print_layers(const struct profile *p, const struct model *model, FILE *stream) {
    int count;
    struct sum *sums = add_up(p, model, true, &count);
    fprintf(stream, "\n%-10s %6s %10s %6s %9s %8s\n", "layer", "parts", "us", "%", "gaps us", "GB/s");
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i];
        char name[16];
        snprintf(name, sizeof name, "%d", s->layer);
        double us = s->us + s->gap_us;
        fprintf(stream, "%-10s %6d %10.2f %6.2f %9.2f",
                s->layer >= 0 ? name
                : i           ? "behind"
                              : "before",
                s->calls, us, 100 * us / p->span_us, s->gap_us);
        print_gbs(gbs(s->bytes, us), stream);
        fputc('\n', stream);
    }
    free(sums);
}

void profile_print(const struct profile *p, const struct model *model, FILE *stream) {
    fprintf(stream,
            "token    %.2f us, the median of %d (%.2f to %.2f; %s), %d %s of %d positions\n"
            "         us: from a kernel's start, or the end of those before it if that is later, to its end; gaps: "
            "nothing ran\n         GB/s: weights and cache that the op or layer has to read, over its us\n",
            p->span_us, p->tokens, p->least_us, p->most_us, p->clock, p->batch, p->batch > 1 ? "sequences" : "sequence",
            p->positions);
    print_kernels(p, model, stream);
    print_layers(p, model, stream);
    fputc('\n', stream);
}

static json_t *json_parts(const struct profile *p, const struct model *model) {
    json_t *array = json_array();
    for (int i = 0; i < p->count; i++) {
        const struct profile_part *part = &p->parts[i];
        json_array_append_new(array,
                              json_pack("{s:i, s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "layer", part->layer, "op",
                                        model_op_name(part->op), "kernel", part->kernel, "start_us", part->start_us,
                                        "end_us", part->end_us, "us", part->us, "gap_us", part->gap_us, "op_bytes",
                                        opens_op(p, i) ? bytes_of(p, model, part) : 0.0));
    }
    return array;
}

static json_t *json_kernels(const struct profile *p, const struct model *model) {
    int count;
    struct sum *sums = add_up(p, model, false, &count);
    json_t *array = json_array();
    for (int i = 0; sums && i < count; i++)
        json_array_append_new(array, json_pack("{s:s, s:s, s:i, s:f, s:f, s:f}", "op", model_op_name(sums[i].op),
                                               "kernel", sums[i].kernel, "calls", sums[i].calls, "us", sums[i].us,
                                               "gap_us", sums[i].gap_us, "op_gb_s", op_gbs(sums, count, sums[i].op)));
    free(sums);
    return array;
}

static json_t *json_layers(const struct profile *p, const struct model *model) {
    int count;
    struct sum *sums = add_up(p, model, true, &count);
    json_t *array = json_array();
    for (int i = 0; sums && i < count; i++) {
        double us = sums[i].us + sums[i].gap_us;
        json_array_append_new(array, json_pack("{s:i, s:f, s:f, s:f}", "layer", sums[i].layer, "us", us, "gap_us",
                                               sums[i].gap_us, "gb_s", gbs(sums[i].bytes, us)));
    }
    free(sums);
    return array;
}

json_t *profile_json(const struct profile *p, const struct model *model) {
    return json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:o, s:o}", "clock", p->clock, "tokens", p->tokens,
                     "batch", p->batch, "positions", p->positions, "span_us", p->span_us, "least_us", p->least_us,
                     "most_us", p->most_us, "kernels", json_kernels(p, model), "layers", json_layers(p, model), "parts",
                     json_parts(p, model));
}
