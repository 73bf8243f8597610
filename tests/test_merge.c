/* Stores that become one, and trials in the T4 format. */
#include "tests/command.h"

#include <jansson.h>
#include <sqlite3.h>

#include "tuner/merge.h"
#include "tuner/t4.h"

static struct error error;
static const struct store_scope scope = {"a GPU", "sm_90a", "0123abcd", "cold, stream", "driver 1", "GPU-1"};
static const struct problem problem = {OP_MARLIN_GEMM, 16, 7168, 5120, 128, true, EPILOGUE_BIAS};
static const struct kernel kernel = {.op = OP_MARLIN_GEMM,
                                     .name = "test",
                                     .parameter_count = 2,
                                     .parameters = {{"a", "-", 2, {1, 2}}, {"b", "-", 9, {1, 2, 3, 4, 5, 6, 7, 8, 9}}}};

static struct store *open_store(const char *name) {
    struct store *store = NULL;
    if (store_open(in_folder(name), &store, &error)) fail_msg("%s", error.text);
    return store;
}

static void put(const char *name, struct config config, double us) {
    float samples[2] = {(float)us, (float)us + 1};
    struct trial_result result = {.us = us, .samples = 2, .sample_us = samples, .seconds = 0.5};
    struct store *store = open_store(name);
    if (store_put(store, &scope, &kernel, &problem, &config, 1, &result, &error)) fail_msg("%s", error.text);
    store_close(store);
}

static void execute(const char *name, const char *sql) {
    sqlite3 *database;
    assert_int_equal(sqlite3_open(in_folder(name), &database), SQLITE_OK);
    if (sqlite3_exec(database, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(database));
    sqlite3_close(database);
}

static double query(const char *name, const char *sql) {
    sqlite3 *database;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open(in_folder(name), &database), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(database, sql, -1, &statement, NULL), SQLITE_OK);
    double value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_double(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return value;
}

static struct merged merge(const char *into, const char *from) {
    struct merged merged;
    char target[128];
    snprintf(target, sizeof target, "%s", in_folder(into));
    if (merge_store(target, in_folder(from), &merged, &error)) fail_msg("%s", error.text);
    return merged;
}

static void make_two(void) {
    put("a", (struct config){{1, 1}}, 10);
    put("a", (struct config){{1, 2}}, 20);
    put("b", (struct config){{1, 2}}, 25);
    put("b", (struct config){{1, 3}}, 30);
    execute("a", "UPDATE trials SET finished = '2026-01-01T00:00:00Z'");
    execute("b", "UPDATE trials SET finished = '2026-01-02T00:00:00Z'");
}

static void expect_both(const char *name) {
    assert_true(query(name, "SELECT count(*) FROM trials") == 3);
    assert_true(query(name, "SELECT us FROM trials WHERE configuration = 'a=1 b=1'") == 10);
    assert_true(query(name, "SELECT us FROM trials WHERE configuration = 'a=1 b=2'") == 25);
    assert_true(query(name, "SELECT count(*) FROM trials WHERE length(sample_us) = 8 AND epilogue = 'bias'") == 3);
    assert_true(query(name, "PRAGMA user_version") == STORE_VERSION);
}

/* In whatever order they come, the later trial stays; merging again changes nothing. */
static void test_the_later_trial_stays(void **state) {
    (void)state;
    make_two();
    struct merged merged = merge("c", "a");
    assert_true(merged.rows == 2 && merged.added == 2 && merged.newer == 0);
    merged = merge("c", "b");
    assert_true(merged.rows == 2 && merged.added == 1 && merged.newer == 1);
    expect_both("c");
    merged = merge("c", "a");
    assert_true(merged.rows == 2 && merged.added == 0 && merged.newer == 0);
    expect_both("c");
    merge("d", "b");
    merge("d", "a");
    expect_both("d");
    assert_true(query("a", "SELECT count(*) FROM trials") == 2);
    merge("c", "c"); /* itself */
    expect_both("c");
}

static void test_finals_regrets_and_chains_come_along(void **state) {
    (void)state;
    const struct trial first = {.kernel = &kernel, .config = {{1, 1}}}, *arms[3] = {&first, &first, &first};
    float us[3 * FINAL_ROUNDS] = {1};
    struct trial_result final = {.samples = 3 * FINAL_ROUNDS, .sample_us = us}, back;
    struct trial_result timed = {.us = 7};
    struct chain_gemm gemms[CHAIN_GEMMS];
    const struct store_chain chain = {gemms, 12, 1};
    bool found = false;
    for (int g = 0; g < CHAIN_GEMMS; g++) gemms[g] = (struct chain_gemm){problem, &kernel, {{1, 1}}};
    struct store *store = open_store("a");
    assert_int_equal(store_put_final(store, &scope, &problem, arms, 3, &final, &error), 0);
    assert_int_equal(store_put_regret(store, &scope, &problem, &first, &first, 0.01, &error), 0);
    assert_int_equal(store_put_chain(store, &scope, &chain, &timed, &error), 0);
    store_close(store);
    struct merged merged = merge("c", "a");
    assert_true(merged.rows == 3 && merged.added == 3);
    store = open_store("c");
    assert_int_equal(store_find_final(store, &scope, &problem, arms, 3, &back, &found, &error), 0);
    assert_true(found && back.samples == 3 * FINAL_ROUNDS);
    free(back.sample_us);
    assert_int_equal(store_find_chain(store, &scope, &chain, &back, &found, &error), 0);
    assert_true(found && back.us == 7);
    store_close(store);
    assert_true(query("c", "SELECT regret FROM regrets") == 0.01);
}

/* Two versions back; the file itself stays of its version. */
static void test_older_versions_are_read(void **state) {
    (void)state;
    make_two();
    execute("a", "DROP TABLE regrets; DROP TABLE chains; PRAGMA user_version = 4");
    execute("b", "DROP TABLE regrets; DROP TABLE finals; DROP TABLE chains; PRAGMA user_version = 3");
    merge("c", "a");
    merge("c", "b");
    expect_both("c");
    assert_true(query("a", "PRAGMA user_version") == 4 && query("b", "PRAGMA user_version") == 3);
    assert_true(query("b", "SELECT count(*) FROM sqlite_schema WHERE name = 'finals'") == 0);
}

static void test_refuses(void **state) {
    (void)state;
    make_two();
    execute("music", "CREATE TABLE music (title)");
    expect(1, "table merge @/a @/none --out @/c", "2 added|none: trial store: unable to open database file");
    expect(1, "table merge @/music --out @/c", "music: not a trial store of tilebook");
    expect(1, "table merge LICENSE --out @/c", "LICENSE: trial store: file is not a database");
    execute("music", "PRAGMA user_version = 3");
    expect(1, "table merge @/music --out @/c", "a copy of |not a trial store of tilebook");
    execute("b", "PRAGMA user_version = 99");
    expect(1, "table merge @/b --out @/c", "has version 99, this program reads up to");
    expect(1, "table merge @/a --out @/no/where", "unable to open database file");
    assert_true(query("c", "SELECT count(*) FROM trials") == 2);
    expect_shell(0, "ls @", "c\n");
    assert_null(strstr(output, "copy"));
    expect(2, "table merge @/a", "merge needs --out STORE");
    expect(2, "table show @/a @/b", "show takes one file");
    expect(2, "table export @/a --format t4", "--format t4 needs --out FILE.json");
    expect(1, "table export @/a --format t4 --out @/t4", "the T4 file's name ends in .json");
    expect(1, "table export LICENSE --format t4 --out @/t4.json", "--format t4 takes a store of trials");
    expect(1, "table export @/a --format t4 --out @/no/t4.json", "cannot write: No such file or directory");
}

#define SHARD "tune --coarse --device cpu --m 1,4 --trials 2 --op marlin_gemm "

/* Two shards and their table: nothing is measured again. */
static void test_shards_to_a_table(void **state) {
    (void)state;
    expect(0, SHARD "--shapes 128x128 --out @/one.txt --store @/one.sqlite", "2 problems");
    expect(0, SHARD "--shapes 128x192 --out @/two.txt --store @/two.sqlite", "2 problems");
    expect(0, "table merge @/one.sqlite @/two.sqlite --out @/all.sqlite", "one.sqlite: |two.sqlite: |added to");
    expect(0, SHARD "--shapes 128x128,128x192 --out @/all.txt --store @/all.sqlite",
           "4 problems, 8 trials, 0 of them new");
    expect_shell(0,
                 "(grep -h ^marlin @/one.txt @/two.txt; grep ^marlin @/all.txt) | tr -s ' ' | sort | uniq -c | "
                 "awk '$1 != 2 { bad = 1 } END { exit bad }'",
                 "");
}

/* --- T4 --- */

static bool is_type(const json_t *value, const char *type) {
    return !strcmp(type, "object")    ? json_is_object(value)
           : !strcmp(type, "array")   ? json_is_array(value)
           : !strcmp(type, "string")  ? json_is_string(value)
           : !strcmp(type, "integer") ? json_is_integer(value)
                                      : !strcmp(type, "number") && json_is_number(value);
}

/* What the schema uses of JSON Schema; NULL, or the rule that the value breaks. */
static const char *breaks(json_t *schema, json_t *value) {
    json_t *type = json_object_get(schema, "type"), *list = json_object_get(schema, "enum"), *item;
    json_t *more = json_object_get(schema, "additionalProperties"), *known = json_object_get(schema, "properties");
    const char *name, *broken = NULL;
    size_t i;
    bool listed = !list;
    if (type && !is_type(value, json_string_value(type))) return json_string_value(type);
    json_array_foreach(list, i, item) listed |= json_equal(item, value);
    if (!listed) return "enum";
    json_array_foreach(json_object_get(schema, "required"), i,
                       item) if (!json_object_get(value, json_string_value(item))) return json_string_value(item);
    json_object_foreach(value, name, item) {
        json_t *rule = json_object_get(known, name);
        if (!rule && json_is_false(more)) return name;
        if (!rule) rule = more;
        if (rule && !broken) broken = breaks(rule, item);
    }
    json_array_foreach(value, i, item) if (!broken && json_object_get(schema, "items")) broken =
        breaks(json_object_get(schema, "items"), item);
    return broken;
}

static json_t *load(const char *path) {
    json_error_t why;
    json_t *root = json_load_file(path, 0, &why);
    if (!root) fail_msg("%s: %s", path, why.text);
    return root;
}

static void test_t4_follows_its_schema(void **state) {
    (void)state;
    static const char *const words[TRIAL_STATUSES] = {"correct", "correctness", "constraints",
                                                      "compile", "runtime",     "timeout"};
    struct store *store = open_store("a");
    struct problem other = problem;
    other.m = 32;
    for (int s = 0; s < TRIAL_STATUSES; s++) {
        float samples[2] = {1500, 1000};
        struct trial_result result = {.status = (enum trial_status)s, .seconds = 0.25};
        struct config config = {{1, 1 + s}};
        if (s) strcpy(result.message, "bad");
        if (!s) result.us = 1250, result.samples = 2, result.sample_us = samples;
        assert_int_equal(store_put(store, &scope, &kernel, &problem, &config, 1 + s, &result, &error), 0);
        assert_int_equal(store_put(store, &scope, &kernel, &other, &config, 1 + s, &result, &error), 0);
    }
    store_close(store);
    expect(0, "table export @/a --format t4 --out @/t4.json", "");
    json_t *schema = load("tuner/t4-results.schema.json"), *root = load(in_folder("t4.json"));
    json_t *sidecar = load(in_folder("t4.sidecar.json")), *results = json_object_get(root, "results"), *first;
    const char *broken = breaks(schema, root);
    if (broken) fail_msg("the schema's '%s' does not hold", broken);
    assert_int_equal(json_array_size(results), 2 * TRIAL_STATUSES);
    for (int s = 0; s < TRIAL_STATUSES; s++) {
        json_t *result = json_array_get(results, (size_t)s);
        assert_string_equal(json_string_value(json_object_get(result, "invalidity")), words[s]);
        assert_int_equal(json_integer_value(json_object_get(result, "correctness")), s == TRIAL_OK);
        json_t *configuration = json_object_get(result, "configuration");
        assert_string_equal(json_string_value(json_object_get(configuration, "kernel")), "marlin_gemm/test");
        assert_int_equal(json_integer_value(json_object_get(configuration, "b")), 1 + s);
    }
    first = json_array_get(results, 0);
    json_t *runs = json_object_get(json_object_get(first, "times"), "runtimes");
    assert_true(json_array_size(runs) == 2 && json_real_value(json_array_get(runs, 0)) == 1.5);
    json_t *time = json_array_get(json_object_get(first, "measurements"), 0);
    assert_true(json_real_value(json_object_get(time, "value")) == 1.25);
    json_t *searches = json_object_get(sidecar, "searches"), *second = json_array_get(searches, 1);
    assert_int_equal(json_array_size(searches), 2);
    assert_int_equal(json_integer_value(json_object_get(second, "first")), TRIAL_STATUSES);
    assert_int_equal(json_integer_value(json_object_get(second, "count")), TRIAL_STATUSES);
    assert_int_equal(json_integer_value(json_object_get(second, "m")), 32);
    assert_string_equal(json_string_value(json_object_get(second, "epilogue")), "bias");
    assert_string_equal(json_string_value(json_object_get(second, "regime")), scope.regime);
    assert_string_equal(json_string_value(json_object_get(sidecar, "results")), "t4.json");
    /* The schema can say no. */
    json_object_set_new(first, "invalidity", json_string("wrong"));
    assert_string_equal(breaks(schema, root), "enum");
    json_object_set_new(first, "invalidity", json_string("correct"));
    json_object_del(first, "times");
    assert_string_equal(breaks(schema, root), "times");
    json_decref(schema);
    json_decref(root);
    json_decref(sidecar);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_the_later_trial_stays),   TEST(test_finals_regrets_and_chains_come_along),
        TEST(test_older_versions_are_read), TEST(test_refuses),
        TEST(test_shards_to_a_table),       TEST(test_t4_follows_its_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
