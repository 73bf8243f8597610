#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plots/data.h"

/* --- profile.jsonl --- */

/* The op's place in `us`; -1 if there are too many. */
static int find_op(struct results_profiles *profiles, const char *name) {
    for (int i = 0; i < profiles->op_count; i++)
        if (!strcmp(profiles->ops[i], name)) return i;
    if (profiles->op_count == RESULTS_OPS) return -1;
    snprintf(profiles->ops[profiles->op_count], sizeof profiles->ops[0], "%s", name);
    return profiles->op_count++;
}

static int read_kernel(const json_t *kernel, struct results_profiles *profiles, struct results_token *token,
                       struct error *error) {
    const char *op;
    double us, gap_us;
    if (json_unpack((json_t *)kernel, "{s:s, s:F, s:F}", "op", &op, "us", &us, "gap_us", &gap_us))
        return error_set(error, "a kernel lacks op, us or gap_us");
    int place = find_op(profiles, op);
    if (place < 0) return error_set(error, "more than %d ops", RESULTS_OPS);
    if (!(us >= 0 && us < INFINITY && gap_us >= 0 && gap_us < INFINITY))
        return error_set(error, "%s took %g us, behind a gap of %g", op, us, gap_us);
    token->us[place] += us;
    token->gap_us += gap_us;
    return 0;
}

static int read_token(const json_t *object, void *context, struct error *error) {
    struct results_profiles *profiles = context;
    const char *method, *device, *clock;
    json_t *kernels, *kernel;
    struct results_token token = {.gap_us = 0};
    int batch, positions;
    size_t index;
    if (json_unpack((json_t *)object, "{s:s, s:s, s:s, s:i, s:i, s:o}", "method", &method, "device_name", &device,
                    "clock", &clock, "batch", &batch, "positions", &positions, "kernels", &kernels))
        return error_set(error, "not what `tilebook decode --profile --json` writes");
    snprintf(token.label, sizeof token.label, "%.40s, batch %d at %d", method, batch, positions);
    snprintf(profiles->device, sizeof profiles->device, "%.120s, clock %.20s", device, clock);
    json_array_foreach(kernels, index, kernel) {
        if (read_kernel(kernel, profiles, &token, error)) return -1;
    }
    profiles->tokens = results_grow(profiles->tokens, profiles->count, sizeof token);
    profiles->tokens[profiles->count++] = token;
    return 0;
}

int results_read_profiles(const char *path, struct results_profiles *profiles, struct error *error) {
    *profiles = (struct results_profiles){.count = 0};
    int status = results_read_lines(path, read_token, profiles, error);
    if (status) results_free_profiles(profiles);
    return status;
}

void results_free_profiles(struct results_profiles *profiles) {
    free(profiles->tokens);
    *profiles = (struct results_profiles){.count = 0};
}

/* --- the figure --- */

static double total(const struct results_profiles *profiles, const struct results_token *token) {
    double sum = token->gap_us;
    for (int i = 0; i < profiles->op_count; i++) sum += token->us[i];
    return sum;
}

int figure_token(const struct figure_input *input, const char *directory, struct figure_text *text,
                 struct error *error) {
    const struct results_profiles *profiles = input->profiles;
    if (!profiles->count) return figure_missing(error, "profile.jsonl holds no token");
    FILE *file = data_open(directory, "token", text->panels = 1, error);
    if (!file) return -1;
    data_text(file, "token");
    data_text(file, "all");
    for (int i = 0; i < profiles->op_count; i++) data_text(file, profiles->ops[i]);
    fputs("\"gaps\"\n", file);
    for (int t = 0; t < profiles->count; t++) {
        const struct results_token *token = &profiles->tokens[t];
        data_text(file, token->label);
        fprintf(file, "%.3f", total(profiles, token));
        for (int i = 0; i < profiles->op_count; i++) fprintf(file, " %.3f", token->us[i]);
        fprintf(file, " %.3f\n", token->gap_us);
    }
    snprintf(text->title, sizeof text->title, "Where the time of a decoded token goes");
    snprintf(text->subtitle, sizeof text->subtitle, "%s", profiles->device);
    return data_close(file, "token", error);
}
