#include "bench/decoder/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct figures {
    int steps;
    double prefill_ms, prefill_sd_ms, prefill_tok_s;
    double mean_ms, sd_ms, p50_ms, p99_ms, tok_s, gbs; /* 0 without a step */
    char hash[17];
};

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Of `count` samples, at least one; the deviation is that of the sample, 0 for a single one. */
static void mean_of(const double *seconds, int count, double *mean_ms, double *sd_ms) {
    double sum = 0, squares = 0;
    for (int i = 0; i < count; i++) sum += seconds[i];
    double mean = sum / count;
    for (int i = 0; i < count; i++) squares += (seconds[i] - mean) * (seconds[i] - mean);
    *mean_ms = mean * 1e3;
    *sd_ms = count > 1 ? sqrt(squares / (count - 1)) * 1e3 : 0;
}

/* Step i of `steps` attends to the prompt and i + 1 tokens behind it. */
static void step_figures(const struct report *report, struct figures *figures) {
    const struct generation *g = report->generation;
    size_t count = (size_t)figures->steps;
    double *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return;
    memcpy(sorted, g->step_seconds, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ascending);
    mean_of(sorted, figures->steps, &figures->mean_ms, &figures->sd_ms);
    figures->p50_ms = sorted[count / 2] * 1e3;
    figures->p99_ms = sorted[(count * 99 - 1) / 100] * 1e3;
    figures->tok_s = g->batch / figures->mean_ms * 1e3;
    double positions = g->batch * (report->prompt_count + (figures->steps + 1) / 2.0);
    figures->gbs = model_bytes_per_step(report->model, positions) / figures->mean_ms / 1e6;
    free(sorted);
}

static struct figures figures_of(const struct report *report) {
    const struct generation *g = report->generation;
    struct figures figures = {.steps = g->count > 1 ? g->count - 1 : 0};
    mean_of(g->prefill_seconds, g->prefills, &figures.prefill_ms, &figures.prefill_sd_ms);
    figures.prefill_tok_s = g->batch * report->prompt_count / figures.prefill_ms * 1e3;
    snprintf(figures.hash, sizeof figures.hash, "%016" PRIx64, generation_hash(g, report->config->vocab));
    if (figures.steps) step_figures(report, &figures);
    return figures;
}

static double gib(size_t bytes) {
    return (double)bytes / (1 << 30);
}

static void print_memory(const struct report *report, FILE *stream) {
    struct model_memory memory = model_memory(report->model);
    fprintf(stream, "memory   %.3f GiB on %s: weights %.3f, KV cache %.3f (%ld tokens, %s), scratch %.3f\n",
            gib(memory.weights + memory.kv + memory.scratch), report->device->id, gib(memory.weights), gib(memory.kv),
            memory.kv_tokens, kv_name(memory.kv_type), gib(memory.scratch));
    if (memory.embedding)
        fprintf(stream, "         the embedding, %.3f GiB, lies in the host's memory\n", gib(memory.embedding));
}

/* What model_print_plans prints; the caller frees. */
static char *plan_lines(const struct report *report) {
    char *lines = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&lines, &bytes);
    if (!stream) return NULL;
    model_print_plans(report->model, stream);
    fclose(stream);
    return lines;
}

/* Prompts of many lengths have many: too many to read. */
static void print_plans(const struct report *report, FILE *stream) {
    char *lines = plan_lines(report), *rest = NULL;
    int count = 0;
    fprintf(stream, "tiles    %s", report->table);
    if (report->regime) fprintf(stream, " (%s)", report->regime);
    fprintf(stream, "\n");
    for (char *line = lines ? strtok_r(lines, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest), count++)
        if (!report->prompts) fprintf(stream, "         %s\n", line);
    if (report->prompts) fprintf(stream, "         for %d shapes and M; --json lists them\n", count);
    free(lines);
}

static void print_steps(const struct report *report, const struct figures *f, FILE *stream) {
    const struct generation *g = report->generation;
    fprintf(stream, "decode   %d steps, %.2f tok/s, %.3f ms/%s (median; mean %.3f, deviation %.3f, p99 %.3f; %s), ",
            f->steps, f->tok_s, f->p50_ms, g->batch > 1 ? "step" : "token", f->mean_ms, f->sd_ms, f->p99_ms, g->clock);
    fprintf(stream, "%.1f GB/s of weights and cache", f->gbs);
    if (report->ceiling_gbs > 0)
        fprintf(stream, ", %.1f %% of the %.0f that were measured here", 100 * f->gbs / report->ceiling_gbs,
                report->ceiling_gbs);
    fputc('\n', stream);
}

static void print_generation(const struct report *report, FILE *stream) {
    struct figures f = figures_of(report);
    const struct generation *g = report->generation;
    if (g->batch > 1) fprintf(stream, "batch    %d sequences\n", g->batch);
    fprintf(stream, "prefill  %d tokens, %.1f ms", g->batch * report->prompt_count, f.prefill_ms);
    if (g->prefills > 1) fprintf(stream, " (mean of %d; deviation %.2f)", g->prefills, f.prefill_sd_ms);
    fprintf(stream, ", %.1f tok/s\n", f.prefill_tok_s);
    if (f.steps) print_steps(report, &f, stream);
    fprintf(stream, "stopped  %s, %d tokens\n", g->stop, g->count);
    fprintf(stream, "logits   fnv1a64 %s\n", f.hash);
}

static void print_perplexity(const struct perplexity *p, FILE *stream) {
    fprintf(stream, "text     perplexity %.4f, %.5f nats a token, %d of %d tokens foretold in %d %s of %d, %.1f s\n",
            p->perplexity, p->nats, p->counted, p->tokens, p->chunks, p->chunks > 1 ? "chunks" : "chunk", p->chunk,
            p->seconds);
}

static double per_second(double count, double seconds) {
    return seconds > 0 ? count / seconds : 0;
}

/* Rows of a step that gave a token. */
static double mean_batch(const struct batch_figures *f) {
    return f->steps ? (double)f->tokens / (double)f->steps : 0;
}

static void print_prompts(const struct batch_figures *f, FILE *stream) {
    fprintf(stream, "prompts  %d done", f->done);
    if (f->failed) fprintf(stream, ", %d failed", f->failed);
    if (f->cancelled || f->waiting) fprintf(stream, ", %d cancelled, %d not begun", f->cancelled, f->waiting);
    fprintf(stream, "; %ld tokens in, %ld out, %.2f s, %.2f tok/s\n", f->prompt_tokens, f->tokens, f->seconds,
            per_second((double)f->tokens, f->seconds));
    fprintf(stream, "batch    %.2f of %d sequences in the mean of %ld steps", mean_batch(f), f->sequences, f->steps);
    if (f->held) fprintf(stream, "; %d prompts waited for room in the KV cache", f->held);
    fprintf(stream, "\n");
    fprintf(stream, "first    token of a prompt %.1f ms after it got its place (median; p99 %.1f)\n",
            f->first_p50_seconds * 1e3, f->first_p99_seconds * 1e3);
}

void report_print(const struct report *report, FILE *stream) {
    fprintf(stream, "model    %s on %s (%s)%s\n", method_name(report->method), report->device->id, report->device->name,
            report->synthetic ? ", synthetic weights" : "");
    if (report->tp > 1)
        fprintf(stream, "shared   by %d devices (--tp); memory, GB/s, kernels and tiles are of %s\n", report->tp,
                report->device->id);
    if (report->perplexity)
        print_perplexity(report->perplexity, stream);
    else if (report->profile)
        profile_print(report->profile, report->model, stream);
    else if (report->prompts)
        print_prompts(report->prompts, stream);
    else
        print_generation(report, stream);
    print_memory(report, stream);
    print_plans(report, stream);
}

static json_t *json_ids(const int *ids, int count) {
    json_t *array = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static json_t *json_plans(const struct report *report) {
    json_t *array = json_array();
    char *lines = plan_lines(report), *rest = NULL;
    for (char *line = lines ? strtok_r(lines, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
        json_array_append_new(array, json_string(line));
    free(lines);
    return array;
}

static json_t *json_memory(const struct report *report) {
    struct model_memory memory = model_memory(report->model);
    return json_pack("{s:I, s:I, s:s, s:I, s:I}", "weights_bytes", (json_int_t)memory.weights, "kv_bytes",
                     (json_int_t)memory.kv, "kv", kv_name(memory.kv_type), "scratch_bytes", (json_int_t)memory.scratch,
                     "host_embedding_bytes", (json_int_t)memory.embedding);
}

static json_t *json_generation(const struct report *report) {
    struct figures f = figures_of(report);
    const struct generation *g = report->generation;
    return json_pack("{s:o, s:o, s:s%, s:s, s:i, s:f, s:f, s:i, s:f, s:f, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:s}",
                     "prompt_ids", json_ids(report->prompt, report->prompt_count), "ids", json_ids(g->ids, g->count),
                     "text", report->text, report->text_bytes, "stop", g->stop, "batch", g->batch, "ceiling_gb_s",
                     report->ceiling_gbs, "prefill_ms", f.prefill_ms, "prefills", g->prefills, "prefill_ms_sd",
                     f.prefill_sd_ms, "prefill_tok_s", f.prefill_tok_s, "decode_steps", f.steps, "clock", g->clock,
                     "tok_s", f.tok_s, "ms_per_token", f.p50_ms, "ms_per_token_mean", f.mean_ms, "ms_per_token_sd",
                     f.sd_ms, "ms_per_token_p99", f.p99_ms, "gb_s", f.gbs, "logits_fnv1a64", f.hash);
}

static json_t *json_perplexity(const struct perplexity *p) {
    return json_pack("{s:f, s:f, s:i, s:i, s:i, s:i, s:f}", "perplexity", p->perplexity, "nats", p->nats, "tokens",
                     p->tokens, "foretold", p->counted, "chunk", p->chunk, "chunks", p->chunks, "seconds", p->seconds);
}

static json_t *json_prompts(const struct batch_figures *f) {
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:i, s:f, s:f, s:f, s:f, s:f}", "done", f->done,
                     "failed", f->failed, "cancelled", f->cancelled, "not_begun", f->waiting, "held", f->held,
                     "prompt_tokens", (json_int_t)f->prompt_tokens, "tokens", (json_int_t)f->tokens, "steps",
                     (json_int_t)f->steps, "batch", f->sequences, "mean_batch", mean_batch(f), "seconds", f->seconds,
                     "tok_s", per_second((double)f->tokens, f->seconds), "ttft_ms_p50", f->first_p50_seconds * 1e3,
                     "ttft_ms_p99", f->first_p99_seconds * 1e3);
}

static json_t *json_report(const struct report *report) {
    json_t *object = report->perplexity ? json_perplexity(report->perplexity)
                     : report->profile  ? profile_json(report->profile, report->model)
                     : report->prompts  ? json_prompts(report->prompts)
                                        : json_generation(report);
    json_t *about =
        json_pack("{s:s, s:s, s:i, s:s, s:b, s:i, s:o, s:s, s:b, s:o}", "method", method_name(report->method), "device",
                  report->device->id, "tp", report->tp, "device_name", report->device->name, "synthetic_weights",
                  report->synthetic, "context", report->context, "memory", json_memory(report), "tiles", report->table,
                  "tuned", report->tuned, "configurations", json_plans(report));
    if (object && json_object_update(object, about)) {
        json_decref(object);
        object = NULL;
    }
    json_decref(about);
    return object;
}

int report_print_json(const struct report *report, FILE *stream, struct error *error) {
    json_t *object = json_report(report);
    if (!object) return error_set(error, "the figures could not be written as JSON");
    int status = json_dumpf(object, stream, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (status || fputc('\n', stream) == EOF || fflush(stream))
        return error_set(error, "the JSON could not be written");
    return 0;
}
