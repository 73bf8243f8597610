#include <stdlib.h>
#include <string.h>

#include "bench/decoder/profile.h"

/* Parts that are added up: those of one kernel of an op, or of a layer. */
struct sum {
    struct model_call call; /* of the first part */
    const char *kernel;     /* likewise */
    int calls;
    double us, gap_us;
    double bytes, flops; /* that the op, or the layer, has to read, and to do */
};

static double gbs(double bytes, double us) {
    return us > 0 ? bytes / us / 1e3 : 0;
}

static double tflops(double flops, double us) {
    return us > 0 ? flops / us / 1e6 : 0;
}

/* A chunk's attention reads what was there before it and the chunk itself, unless no row attends. */
static double bytes_of(const struct profile_run *run, const struct model *model, const struct model_call *call) {
    double positions = call->position < 0 ? run->positions : call->rows ? call->position + call->rows : 0;
    return model_op_bytes(model, call->layer, call->op, positions);
}

/* Each query attends to all positions up to its own. */
static double flops_of(const struct profile_run *run, const struct model *model, const struct model_call *call) {
    double pairs = call->position < 0 ? run->positions : call->rows * (call->position + (call->rows + 1) / 2.0);
    return model_op_flops(model, call->layer, call->op, call->rows, pairs);
}

static bool opens_op(const struct profile_run *run, int i) {
    const struct model_call *call = &run->parts[i].call, *before = i ? &run->parts[i - 1].call : NULL;
    return !i || call->op != before->op || call->layer != before->layer;
}

/* What is outside of layers comes ahead of them or behind. */
static bool same_layer(const struct model_call *a, const struct model_call *b) {
    return a->layer == b->layer && (a->layer >= 0 || (a->op == MODEL_EMBED) == (b->op == MODEL_EMBED));
}

/* The part's sum, a new one if need be. Kernels stay in the order of their ops, whichever chunk has them first. */
static struct sum *find(struct sum *sums, int *count, const struct profile_part *part, bool layers) {
    const struct model_call *call = &part->call;
    int at = *count;
    for (int i = 0; i < *count; i++)
        if (layers ? same_layer(&sums[i].call, call)
                   : sums[i].call.op == call->op && !strcmp(sums[i].kernel, part->kernel))
            return &sums[i];
    while (!layers && at && sums[at - 1].call.op > call->op) at--;
    memmove(&sums[at + 1], &sums[at], (size_t)(*count - at) * sizeof *sums);
    (*count)++;
    sums[at] = (struct sum){.call = *call, .kernel = part->kernel};
    return &sums[at];
}

/* By op and kernel in the order of the first layer's, or by layer: the parts before the layers, each layer, those
 * behind. The caller frees. */
static struct sum *add_up(const struct profile_run *run, const struct model *model, bool layers, int *count) {
    struct sum *sums = calloc((size_t)run->count, sizeof *sums);
    *count = 0;
    for (int i = 0; sums && i < run->count; i++) {
        const struct profile_part *part = &run->parts[i];
        struct sum *sum = find(sums, count, part, layers);
        sum->calls++;
        sum->us += part->us;
        sum->gap_us += part->gap_us;
        if (!opens_op(run, i)) continue;
        sum->bytes += bytes_of(run, model, &part->call);
        sum->flops += flops_of(run, model, &part->call);
    }
    return sums;
}

static void join(struct sum *all, const struct sum *sum) {
    all->us += sum->us;
    all->gap_us += sum->gap_us;
    all->bytes += sum->bytes;
    all->flops += sum->flops;
}

/* Of all kernels of the op. */
static struct sum op_sum(const struct sum *sums, int count, enum model_op op) {
    struct sum all = {.calls = 0};
    for (int i = 0; i < count; i++)
        if (sums[i].call.op == op) join(&all, &sums[i]);
    return all;
}

/* Nothing where nothing is read, or no product made. */
static void print_rates(double bytes, double flops, double us, FILE *stream) {
    if (bytes > 0)
        fprintf(stream, " %8.1f", gbs(bytes, us));
    else
        fprintf(stream, " %8s", "");
    if (flops > 0)
        fprintf(stream, " %8.2f", tflops(flops, us));
    else
        fprintf(stream, " %8s", "");
}

static void print_kernels(const struct profile_run *run, const struct model *model, FILE *stream) {
    int count;
    struct sum *sums = add_up(run, model, false, &count), all = {.calls = 0};
    fprintf(stream, "\n%-10s %6s %10s %6s %9s %9s %8s %8s  %s\n", "op", "calls", "us", "%", "us each", "gaps us",
            "GB/s", "TFLOP/s", "kernel");
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i], op = op_sum(sums, count, s->call.op);
        fprintf(stream, "%-10s %6d %10.2f %6.2f %9.3f %9.2f", model_op_name(s->call.op), s->calls, s->us,
                100 * s->us / run->span_us, s->us / s->calls, s->gap_us);
        print_rates(op.bytes, op.flops, op.us, stream);
        fprintf(stream, "  %s\n", s->kernel);
        join(&all, s);
    }
    fprintf(stream, "%-10s %6s %10.2f %6.2f\n", "gaps", "", all.gap_us, 100 * all.gap_us / run->span_us);
    fprintf(stream, "%-10s %6d %10.2f %6.2f %9s %9.2f", "all", run->count, run->span_us, 100.0, "", all.gap_us);
    print_rates(all.bytes, all.flops, run->span_us, stream);
    fputc('\n', stream);
    free(sums);
}

static void print_layers(const struct profile_run *run, const struct model *model, FILE *stream) {
    int count;
    struct sum *sums = add_up(run, model, true, &count);
    fprintf(stream, "\n%-10s %6s %10s %6s %9s %8s %8s\n", "layer", "parts", "us", "%", "gaps us", "GB/s", "TFLOP/s");
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i];
        char name[16];
        snprintf(name, sizeof name, "%d", s->call.layer);
        double us = s->us + s->gap_us;
        fprintf(stream, "%-10s %6d %10.2f %6.2f %9.2f",
                s->call.layer >= 0          ? name
                : s->call.op == MODEL_EMBED ? "before"
                                            : "behind",
                s->calls, us, 100 * us / run->span_us, s->gap_us);
        print_rates(s->bytes, s->flops, us, stream);
        fputc('\n', stream);
    }
    fputc('\n', stream);
    free(sums);
}

static void print_run(const struct profile_run *run, const struct model *model, const char *name, const char *clock,
                      const char *of, FILE *stream) {
    fprintf(stream, "%-8s %.2f us, the median of %d (%.2f to %.2f; %s), %s\n", name, run->span_us, run->runs,
            run->least_us, run->most_us, clock, of);
    print_kernels(run, model, stream);
    print_layers(run, model, stream);
}

static double tokens_per_second(const struct profile *p) {
    return p->prefill.span_us > 0 ? p->prompt / p->prefill.span_us * 1e6 : 0;
}

void profile_print(const struct profile *p, const struct model *model, FILE *stream) {
    char prefill[96], token[96];
    snprintf(prefill, sizeof prefill, "one prompt of %d tokens, %.1f tok/s", p->prompt, tokens_per_second(p));
    snprintf(token, sizeof token, "%d %s of %d positions", p->batch, p->batch > 1 ? "sequences" : "sequence",
             p->positions);
    fputs(
        "profile  us: from a kernel's start, or the end of those before it if that is later, to its end; gaps: nothing "
        "ran\n         GB/s: weights and cache that the op or layer has to read, over its us; TFLOP/s: its products\n",
        stream);
    print_run(&p->prefill, model, "prefill", p->clock, prefill, stream);
    print_run(&p->token, model, "token", p->clock, token, stream);
}

static json_t *json_parts(const struct profile_run *run, const struct model *model) {
    json_t *array = json_array();
    for (int i = 0; i < run->count; i++) {
        const struct profile_part *part = &run->parts[i];
        const struct model_call *call = &part->call;
        bool opens = opens_op(run, i);
        json_array_append_new(array, json_pack("{s:i, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "layer", call->layer,
                                               "op", model_op_name(call->op), "kernel", part->kernel, "start_us",
                                               part->start_us, "end_us", part->end_us, "us", part->us, "gap_us",
                                               part->gap_us, "op_bytes", opens ? bytes_of(run, model, call) : 0,
                                               "op_flops", opens ? flops_of(run, model, call) : 0));
    }
    return array;
}

static json_t *json_kernels(const struct profile_run *run, const struct model *model) {
    int count;
    struct sum *sums = add_up(run, model, false, &count);
    json_t *array = json_array();
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i], op = op_sum(sums, count, s->call.op);
        json_array_append_new(array, json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f}", "op", model_op_name(s->call.op),
                                               "kernel", s->kernel, "calls", s->calls, "us", s->us, "gap_us", s->gap_us,
                                               "op_gb_s", gbs(op.bytes, op.us), "op_tflop_s", tflops(op.flops, op.us)));
    }
    free(sums);
    return array;
}

static json_t *json_layers(const struct profile_run *run, const struct model *model) {
    int count;
    struct sum *sums = add_up(run, model, true, &count);
    json_t *array = json_array();
    for (int i = 0; sums && i < count; i++) {
        const struct sum *s = &sums[i];
        double us = s->us + s->gap_us;
        json_array_append_new(array, json_pack("{s:i, s:f, s:f, s:f, s:f}", "layer", s->call.layer, "us", us, "gap_us",
                                               s->gap_us, "gb_s", gbs(s->bytes, us), "tflop_s", tflops(s->flops, us)));
    }
    free(sums);
    return array;
}

/* Into the object, which says what ran. */
static json_t *json_run(json_t *object, const struct profile_run *run, const struct model *model) {
    json_t *figures = json_pack("{s:f, s:f, s:f, s:o, s:o, s:o}", "span_us", run->span_us, "least_us", run->least_us,
                                "most_us", run->most_us, "kernels", json_kernels(run, model), "layers",
                                json_layers(run, model), "parts", json_parts(run, model));
    if (object && json_object_update(object, figures)) {
        json_decref(object);
        object = NULL;
    }
    json_decref(figures);
    return object;
}

/* The token's figures, and the prefill's as an object among them. */
json_t *profile_json(const struct profile *p, const struct model *model) {
    json_t *prefill = json_run(json_pack("{s:i, s:i, s:f}", "runs", p->prefill.runs, "prompt_tokens", p->prompt,
                                         "tok_s", tokens_per_second(p)),
                               &p->prefill, model);
    json_t *token = json_run(json_pack("{s:s, s:i, s:i, s:i}", "clock", p->clock, "tokens", p->token.runs, "batch",
                                       p->batch, "positions", p->positions),
                             &p->token, model);
    if (!token || !prefill || json_object_set(token, "prefill", prefill)) {
        json_decref(token);
        token = NULL;
    }
    json_decref(prefill);
    return token;
}
