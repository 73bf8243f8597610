#include "tuner/ranges.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KNOWN = 12, LEADERS = 3, ROUNDS = 3 /* of placing borders and testing rows */ };

/* What is not worth a trial: a border may be off by this share of m. */
static const double resolution = 1.0 / 8;

static bool spent(const struct tune *tune) {
    return tune->budget_s > 0 && tune->spent_s >= tune->budget_s;
}

static const struct trial *winner(const struct tune_item *item) {
    return item->result.best < 0 ? NULL : &item->result.trials[item->result.best];
}

static bool same(const struct trial *a, const struct trial *b) {
    return a->kernel == b->kernel && !memcmp(&a->config, &b->config, sizeof a->config);
}

/* Candidates, each once; trials move when items come, so they are copies. */
struct known {
    struct trial list[KNOWN];
    int count;
};

static void know(struct known *known, const struct trial *trial) {
    for (int i = 0; i < known->count; i++)
        if (same(&known->list[i], trial)) return;
    if (known->count < KNOWN)
        known->list[known->count++] = (struct trial){.kernel = trial->kernel, .config = trial->config};
}

/* --- borders --- */

static bool wide(const struct tune_item *low, const struct tune_item *high) {
    int gap = high->problem.m - low->problem.m;
    return gap > 1 && gap > resolution * low->problem.m;
}

/* Items that come between two are looked at before what lies above. */
static int place_borders(struct tune *tune) {
    for (int i = 0; i + 1 < tune->count;) {
        const struct tune_item *low = &tune->items[i], *high = low + 1;
        struct known known = {.count = 0};
        bool crossing = tune_neighbours(low, high) && winner(low) && winner(high) && !same(winner(low), winner(high));
        if (!crossing || !wide(low, high) || spent(tune)) {
            i++;
            continue;
        }
        know(&known, winner(low));
        know(&known, winner(high));
        int m = low->problem.m + (high->problem.m - low->problem.m) / 2;
        int status = tune_insert(tune, i + 1, m, known.list, known.count);
        if (status && status != TUNE_SKIPPED) return status;
        i += status == TUNE_SKIPPED;
    }
    return 0;
}

/* --- held-out m --- */

/* Items of one row: neighbours with the same winner. */
struct run {
    int first, last;
};

static struct run find_run(const struct tune *tune, int first) {
    struct run run = {first, first};
    const struct trial *best = winner(&tune->items[first]);
    while (best && run.last + 1 < tune->count) {
        const struct tune_item *next = &tune->items[run.last + 1];
        if (!tune_neighbours(&tune->items[first], next) || !winner(next) || !same(best, winner(next))) break;
        run.last++;
    }
    return run;
}

static bool measured(const struct tune *tune, struct run run, int m) {
    for (int i = run.first; i <= run.last; i++)
        if (tune->items[i].problem.m == m) return true;
    return false;
}

/* The one that is nearest to the row's geometric middle, odd rather than even; 0 if all were measured. */
static int choose_m(const struct tune *tune, struct run run) {
    int low = tune->items[run.first].m_low, high = tune->items[run.last].problem.m, best = 0;
    double middle = sqrt((double)low * high);
    for (int odd = 1; odd >= 0 && !best; odd--)
        for (int m = low; m <= high; m++)
            if (m % 2 == odd && !measured(tune, run, m) && (!best || fabs(m - middle) < fabs(best - middle))) best = m;
    return best;
}

/* The fastest trials of an item. */
static void know_leaders(struct known *known, const struct tune_item *item) {
    const struct search_result *result = &item->result;
    double above = 0;
    for (int n = 0; n < LEADERS; n++) {
        const struct trial *next = NULL;
        for (int i = 0; i < result->count; i++) {
            const struct trial *trial = &result->trials[i];
            if (trial->result.status != TRIAL_OK || trial->result.us <= above) continue;
            if (!next || trial->result.us < next->result.us) next = trial;
        }
        if (!next) return;
        know(known, next);
        above = next->result.us;
    }
}

/* The row's winner first. Not more than KNOWN. */
static struct known rivals(const struct tune *tune, struct run run, int at) {
    const struct tune_item *items = tune->items;
    struct known known = {.count = 0};
    know(&known, winner(&items[run.first]));
    if (run.first && tune_neighbours(&items[run.first - 1], &items[run.first]) && winner(&items[run.first - 1]))
        know(&known, winner(&items[run.first - 1]));
    if (run.last + 1 < tune->count && tune_neighbours(&items[run.last], &items[run.last + 1]) &&
        winner(&items[run.last + 1]))
        know(&known, winner(&items[run.last + 1]));
    know_leaders(&known, &items[at]);
    if (at > run.first) know_leaders(&known, &items[at - 1]);
    return known;
}

static void tell_split(struct tune *tune, const struct tune_item *item, const struct trial *row) {
    char problem[128], name[64], config[MAX_CONFIG_TEXT];
    progress_line(tune->progress, "%s: the row's %s %s loses %.1f%%: it is split here",
                  problem_text(&item->problem, problem), kernel_full_name(row->kernel, name),
                  config_text(row->kernel, &row->config, config), 100 * item->regret);
}

/* A row that cannot run there loses everything; one that loses little stays as it is. */
static int judge(struct tune *tune, struct tune_item *item, const struct trial *row) {
    struct search_result *result = &item->result;
    const struct trial *best = winner(item);
    bool runs = result->incumbent >= 0 && same(&result->trials[result->incumbent], row) &&
                result->trials[result->incumbent].result.status == TRIAL_OK;
    item->held_out = true;
    item->regret = runs ? search_regret(result) : INFINITY;
    if (store_put_regret(tune->store, &tune->scope, &item->problem, row, best, item->regret, &tune->error)) return -1;
    if (item->regret > RANGES_REGRET)
        tell_split(tune, item, row);
    else
        result->best = result->incumbent;
    return 0;
}

static bool tested(const struct tune *tune, struct run run) {
    for (int i = run.first; i <= run.last; i++)
        if (tune->items[i].held_out) return true;
    return false;
}

/* *splits counts the rows that were split. */
static int test_rows(struct tune *tune, int *splits) {
    *splits = 0;
    for (int i = 0; i < tune->count; i++) {
        struct run run = find_run(tune, i);
        int m = winner(&tune->items[i]) && !tested(tune, run) ? choose_m(tune, run) : 0, at = run.first;
        i = run.last;
        if (!m || spent(tune)) continue;
        while (tune->items[at].problem.m < m) at++;
        struct known known = rivals(tune, run, at);
        int status = tune_insert(tune, at, m, known.list, known.count);
        if (!status) status = judge(tune, &tune->items[at], &known.list[0]);
        if (status && status != TUNE_SKIPPED) return status;
        if (status) continue;
        *splits += tune->items[at].regret > RANGES_REGRET;
        i++;
    }
    return 0;
}

int ranges_refine(struct tune *tune) {
    int status = place_borders(tune), splits = 1;
    for (int round = 0; round < ROUNDS && splits && !status; round++) {
        status = test_rows(tune, &splits);
        if (!status && splits) status = place_borders(tune);
    }
    return status;
}

struct ranges_summary ranges_summarize(const struct tune *tune) {
    struct ranges_summary summary = {.tested = 0};
    for (int i = 0; i < tune->count; i++) {
        const struct tune_item *item = &tune->items[i];
        bool split = item->regret > RANGES_REGRET;
        summary.tested += item->held_out;
        summary.split += split;
        if (!item->held_out || split || item->regret <= summary.worst) continue;
        summary.worst = item->regret;
        summary.at = item;
    }
    return summary;
}
