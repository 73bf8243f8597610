#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "plots/data.h"

/* --- against.jsonl --- */

static int read_ratio(json_t *object, struct results_ratio *ratio) {
    if (json_unpack(object, "{s:F, s:F, s:F, s:F, s:F}", "tok_s", &ratio->tok_s, "against_tok_s", &ratio->against_tok_s,
                    "speedup", &ratio->speedup, "low", &ratio->low, "high", &ratio->high))
        return -1;
    return ratio->low > 0 && ratio->low <= ratio->speedup && ratio->speedup <= ratio->high && ratio->high < 1e6 ? 0
                                                                                                                : -1;
}

static int read_match(const json_t *object, void *context, struct error *error) {
    struct results_matches *matches = context;
    struct results_match match;
    const char *method, *against;
    json_t *decode, *prefill;
    int batch;
    if (json_unpack((json_t *)object, "{s:s, s:s, s:i, s:o, s:o}", "quantization", &method, "against", &against,
                    "batch", &batch, "decode", &decode, "prefill", &prefill) ||
        read_ratio(decode, &match.decode) || read_ratio(prefill, &match.prefill))
        return error_set(error, "not what `tilebook decode --bench --against TABLE --json` writes");
    snprintf(match.label, sizeof match.label, "%.40s, batch %d", method, batch);
    const char *name = strrchr(against, '/');
    snprintf(matches->against, sizeof matches->against, "%s", name ? name + 1 : against);
    matches->matches = results_grow(matches->matches, matches->count, sizeof match);
    matches->matches[matches->count++] = match;
    return 0;
}

int results_read_matches(const char *path, struct results_matches *matches, struct error *error) {
    *matches = (struct results_matches){.count = 0};
    int status = results_read_lines(path, read_match, matches, error);
    if (status) results_free_matches(matches);
    return status;
}

void results_free_matches(struct results_matches *matches) {
    free(matches->matches);
    *matches = (struct results_matches){.count = 0};
}

/* --- the figure --- */

static void write_ratio(FILE *file, const struct results_match *match, const struct results_ratio *ratio) {
    data_text(file, match->label);
    fprintf(file, "%.4f %.4f %.4f %.1f %.1f\n", ratio->speedup, ratio->low, ratio->high, ratio->tok_s,
            ratio->against_tok_s);
}

int figure_against(const struct figure_input *input, const char *directory, struct figure_text *text,
                   struct error *error) {
    const struct results_matches *matches = input->matches;
    if (!matches->count) return figure_missing(error, "against.jsonl holds no comparison");
    FILE *file = data_open(directory, "against", text->panels = 1, error);
    if (!file) return -1;
    for (int m = 0; m < matches->count; m++) write_ratio(file, &matches->matches[m], &matches->matches[m].decode);
    fputs("\n\n", file);
    for (int m = 0; m < matches->count; m++) write_ratio(file, &matches->matches[m], &matches->matches[m].prefill);
    snprintf(text->title, sizeof text->title, "What the tile table is worth in the decoder");
    snprintf(text->subtitle, sizeof text->subtitle,
             "%s; tok/s over those with %s, by turns in one process; 95 %% intervals", input->device,
             strcmp(matches->against, "untuned") ? matches->against : "built-in configurations");
    return data_close(file, "against", error);
}
