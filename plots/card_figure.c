#include <stdlib.h>

#include "plots/data.h"

static const double gap = 5; /* seconds without a state that interrupt a line: nothing was measured then */

enum { POWER_CAP = 0x4 };

static int by_time(const void *a, const void *b) {
    const struct measure_state *p = a, *q = b;
    return (p->unix_s > q->unix_s) - (p->unix_s < q->unix_s);
}

/* Those of all rows in the order of time; the caller frees them. */
static struct measure_state *gather(const struct states *states, int *count) {
    struct measure_state *all = NULL;
    *count = 0;
    for (int r = 0; r < states->count; r++)
        for (int i = 0; i < states->rows[r].count; i++) {
            all = results_grow(all, *count, sizeof *all);
            all[(*count)++] = states->rows[r].list[i];
        }
    if (all) qsort(all, (size_t)*count, sizeof *all, by_time);
    return all;
}

/* Seconds, clocks, power, temperature, and 0 for a card that is free, 1 under the power cap, 2 throttled. */
static void put_state(FILE *file, const struct measure_state *state, double start) {
    const struct gpu_state *card = &state->card;
    int held = nvml_impairment(card->throttle) ? 2 : (card->throttle & POWER_CAP) != 0;
    fprintf(file, "%.2f %d %d %.1f %d %d\n", state->unix_s - start, card->sm_mhz, card->memory_mhz, card->watts,
            card->celsius, held);
}

int figure_card(const struct figure_input *input, const char *directory, struct figure_text *text,
                struct error *error) {
    int count;
    struct measure_state *states = gather(input->states, &count);
    if (!count) return figure_missing(error, "sweep.json.states holds no state of a card");
    FILE *file = data_open(directory, "card", text->panels = 1, error);
    if (file) data_header(file, "", "");
    for (int i = 0; file && i < count; i++) {
        if (i && states[i].unix_s - states[i - 1].unix_s > gap) fprintf(file, "\n");
        put_state(file, &states[i], states[0].unix_s);
    }
    free(states);
    snprintf(text->title, sizeof text->title, "The card while rows were measured");
    snprintf(text->subtitle, sizeof text->subtitle, "%s%s%s", input->device, *input->sweep->regime ? ", " : "",
             input->sweep->regime);
    return file ? data_close(file, "card", error) : -1;
}
