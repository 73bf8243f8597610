#include "bench/decoder/against.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const double floor_share = 0.01; /* two runs of the same code differ by about this much */

enum { OLD, AGAIN, NEW, ARMS };

struct series {
    float step_us[ARMS][AGAINST_ROUNDS], prefill_us[ARMS][AGAINST_ROUNDS];
};

static double median_us(const double *seconds, int count, float *work) {
    for (int i = 0; i < count; i++) work[i] = (float)(1e6 * seconds[i]);
    measure_sort(work, count);
    return measure_median(work, count);
}

/* One arm of one round. */
static int run_arm(struct against *a, struct model *model, const struct model_config *config, const int *prompt,
                   const struct generate_options *options, int arm, struct generation *out, struct error *error) {
    struct stream stream = {.out = NULL};
    if (model_use(model, arm == NEW ? a->table : a->old, error)) return -1;
    return generate(model, config, NULL, prompt, a->prompt_count, options, &stream, out, error);
}

static int keep(struct series *series, int arm, int round, const struct generation *g, struct error *error) {
    int most = g->count > GENERATE_PREFILLS ? g->count : GENERATE_PREFILLS;
    float *work = malloc((size_t)most * sizeof *work);
    if (!work) return error_set(error, "out of memory");
    series->step_us[arm][round] = (float)median_us(g->step_seconds, g->count - 1, work);
    series->prefill_us[arm][round] = (float)median_us(g->prefill_seconds, g->prefills, work);
    free(work);
    return 0;
}

/* The arms of a round in random order. */
static void shuffle(unsigned short random[3], int order[ARMS]) {
    for (int i = 0; i < ARMS; i++) {
        int place = (int)(erand48(random) * (i + 1));
        order[i] = order[place];
        order[place] = i;
    }
}

static int run_rounds(struct against *a, struct model *model, const struct model_config *config, const int *prompt,
                      const struct generate_options *options, struct series *series, int *ids[ARMS],
                      struct error *error) {
    unsigned short random[3] = {(unsigned short)options->sampling.seed};
    for (int round = 0; round < AGAINST_ROUNDS; round++) {
        int order[ARMS] = {0};
        shuffle(random, order);
        for (int i = 0; i < ARMS; i++) {
            struct generation g;
            if (run_arm(a, model, config, prompt, options, order[i], &g, error)) return -1;
            int status = keep(series, order[i], round, &g, error);
            memcpy(ids[order[i]], g.ids, (size_t)g.count * sizeof *g.ids);
            a->tokens = g.count;
            generation_free(&g);
            if (status) return -1;
        }
    }
    return 0;
}

static int judge(const float us[ARMS][AGAINST_ROUNDS], struct compare_row *row, struct error *error) {
    return compare_rounds(us[OLD], us[AGAIN], us[NEW], AGAINST_ROUNDS, floor_share, row, error);
}

int against_run(struct against *a, struct model *model, const struct model_config *config, const int *prompt,
                const struct generate_options *options, struct error *error) {
    struct series series;
    size_t room = (size_t)options->max_tokens;
    int *all = calloc(ARMS * room, sizeof *all), *ids[ARMS] = {all, all + room, all + 2 * room};
    if (!all) return error_set(error, "out of memory");
    int status = run_rounds(a, model, config, prompt, options, &series, ids, error) ||
                         judge(series.step_us, &a->decode, error) || judge(series.prefill_us, &a->prefill, error)
                     ? -1
                     : 0;
    while (a->agreed < a->tokens && ids[OLD][a->agreed] == ids[NEW][a->agreed]) a->agreed++;
    free(all);
    return status;
}

/* --- what it says --- */

static const char *verdict_text(enum verdict verdict) {
    return verdict == VERDICT_FASTER ? "faster" : verdict == VERDICT_SLOWER ? "slower" : "a tie";
}

/* Tokens a second: of all sequences. */
static double rate(const struct against *a, double us, double tokens) {
    return 1e6 * tokens * a->batch / us;
}

static void print_row(const struct against *a, const char *what, const struct compare_row *row, double tokens,
                      FILE *stream) {
    fprintf(stream, "%-8s %.2f tok/s against %.2f: %.3fx (95%%: %.3f to %.3f; noise %.1f%%): %s\n", what,
            rate(a, row->b.us, tokens), rate(a, row->a.us, tokens), 1 / row->ratio, 1 / row->high, 1 / row->low,
            100 * row->noise, verdict_text(row->verdict));
}

void against_print(const struct against *a, FILE *stream) {
    fprintf(stream,
            "%s against %s: %s on %s, %s cache, %d sequence%s, %d tokens of prompt each, %d rounds by turns, %d steps "
            "each\n",
            a->name, a->old_name, a->method, a->device, kv_name(a->kv), a->batch, a->batch == 1 ? "" : "s",
            a->prompt_count, AGAINST_ROUNDS, a->tokens - 1);
    print_row(a, "decode", &a->decode, 1, stream);
    print_row(a, "prefill", &a->prefill, a->prompt_count, stream);
    fprintf(stream, "tokens   the first %d of %d are the same\n", a->agreed, a->tokens);
}

static json_t *row_json(const struct against *a, const struct compare_row *row, double tokens) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "tok_s", rate(a, row->b.us, tokens), "against_tok_s",
                     rate(a, row->a.us, tokens), "speedup", 1 / row->ratio, "low", 1 / row->high, "high", 1 / row->low,
                     "noise", row->noise, "verdict", row->verdict == VERDICT_TIE ? "tie" : verdict_text(row->verdict));
}

int against_print_json(const struct against *a, FILE *stream, struct error *error) {
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:o, s:o}", "table", a->name, "against",
                  a->old_name, "quantization", a->method, "device", a->device, "kv", kv_name(a->kv), "batch", a->batch,
                  "prompt", a->prompt_count, "rounds", AGAINST_ROUNDS, "agreed", a->agreed, "tokens", a->tokens,
                  "decode", row_json(a, &a->decode, 1), "prefill", row_json(a, &a->prefill, a->prompt_count));
    int status = object ? json_dumpf(object, stream, JSON_REAL_PRECISION(9)) : -1;
    json_decref(object);
    fputc('\n', stream);
    return status ? error_set(error, "the JSON could not be written") : 0;
}
