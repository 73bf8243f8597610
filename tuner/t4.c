#include "tuner/t4.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char version[] = "1.0.0";

struct t4 {
    json_t *results, *searches;
};

/* The format's own words. */
static const char *const invalidity[TRIAL_STATUSES] = {
    [TRIAL_OK] = "correct",      [TRIAL_CORRECTNESS] = "correctness", [TRIAL_CONSTRAINT] = "constraints",
    [TRIAL_COMPILE] = "compile", [TRIAL_RUNTIME] = "runtime",         [TRIAL_TIMEOUT] = "timeout",
};

/* "tile_m=16 stages=4" with the kernel before them. */
static json_t *configuration(const struct stored_trial *trial) {
    json_t *object = json_pack("{ss}", "kernel", trial->kernel);
    for (const char *at = trial->configuration; object && strchr(at, '='); at += strspn(at, " ")) {
        char name[MAX_PARAMETER_NAME + 1];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "="), at);
        at = strchr(at, '=') + 1;
        json_object_set_new(object, name, json_integer(strtol(at, NULL, 10)));
        at += strcspn(at, " ");
    }
    return object;
}

static json_t *runtimes(const struct trial_result *result) {
    json_t *list = json_array();
    for (int i = 0; i < result->samples; i++)
        json_array_append_new(list, json_real((double)result->sample_us[i] / 1e3));
    return list;
}

static json_t *measurements(const struct trial_result *result) {
    if (result->status != TRIAL_OK) return json_array();
    return json_pack("[{ss sf ss} {ss sf ss}]", "name", "time", "value", result->us / 1e3, "unit", "ms", "name",
                     "trial", "value", result->seconds * 1e3, "unit", "ms");
}

static json_t *make_result(const struct stored_trial *trial) {
    const struct trial_result *r = &trial->result;
    json_t *result =
        json_pack("{ss so s{so} ss si so s[s]}", "timestamp", trial->finished, "configuration", configuration(trial),
                  "times", "runtimes", runtimes(r), "invalidity", invalidity[r->status], "correctness",
                  r->status == TRIAL_OK, "measurements", measurements(r), "objectives", "time");
    if (result && r->message[0]) json_object_set_new(result, "message", json_string(r->message));
    return result;
}

static json_t *make_search(const struct stored_trial *t, size_t first) {
    return json_pack("{ss ss ss ss ss ss ss si si si sb si ss sI}", "device", t->scope.device, "architecture",
                     t->scope.architecture, "kernels", t->scope.kernels, "regime", t->scope.regime, "software",
                     t->scope.software, "uuid", t->scope.uuid, "op", t->op, "k", t->k, "n", t->n, "group", t->group,
                     "zeros", t->zeros, "m", t->m, "epilogue", t->epilogue, "first", (json_int_t)first);
}

/* Trials of one search follow each other: what differs from the last search begins another. */
static int add_trial(void *context, const struct stored_trial *trial) {
    struct t4 *t4 = context;
    size_t count = json_array_size(t4->results), searches = json_array_size(t4->searches);
    json_t *last = searches ? json_array_get(t4->searches, searches - 1) : NULL;
    json_t *search = make_search(trial, last ? (size_t)json_integer_value(json_object_get(last, "first")) : 0);
    json_int_t members = last ? json_integer_value(json_object_get(last, "count")) : 0;
    if (search) json_object_set_new(search, "count", json_integer(members));
    if (last && json_equal(last, search)) {
        json_decref(search);
        json_object_set_new(last, "count", json_integer(members + 1));
    } else if (search) {
        json_object_set_new(search, "first", json_integer((json_int_t)count));
        json_object_set_new(search, "count", json_integer(1));
        json_array_append_new(t4->searches, search);
    }
    return json_array_append_new(t4->results, make_result(trial));
}

static int dump(json_t *root, const char *path, struct error *error) {
    if (root && !json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(9))) return 0;
    return error_set(error, "%s: cannot write: %s", path, root ? strerror(errno) : "out of memory");
}

int t4_write(struct store *store, const char *path, struct error *error) {
    struct t4 t4 = {json_array(), json_array()};
    char sidecar[512];
    const char *slash = strrchr(path, '/'), *end = strrchr(path, '.');
    int status = -1;
    error_set(error, "out of memory");
    if (!end || strcmp(end, ".json"))
        error_set(error, "%s: the T4 file's name ends in .json; the sidecar is named after it", path);
    else if (snprintf(sidecar, sizeof sidecar, "%.*s.sidecar.json", (int)(end - path), path) >= (int)sizeof sidecar)
        error_set(error, "%s: the path is too long", path);
    else if (t4.results && t4.searches)
        status = store_each(store, add_trial, &t4, error);
    json_t *results = json_pack("{ss so}", "schema_version", version, "results", t4.results);
    json_t *searches = json_pack("{ss ss so}", "schema_version", version, "results", slash ? slash + 1 : path,
                                 "searches", t4.searches);
    if (!status) status = dump(results, path, error) || dump(searches, sidecar, error) ? -1 : 0;
    json_decref(results);
    json_decref(searches);
    return status;
}
