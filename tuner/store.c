#include "tuner/store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { APPLICATION_ID = 0x74626f6b /* "tbok" */, BUSY_MILLISECONDS = 2000 };

struct store {
    sqlite3 *database;
    sqlite3_stmt *find, *put, *forget, *find_final, *put_final, *forget_finals, *put_regret, *forget_regret,
        *find_chain, *put_chain, *forget_chains, *replay, *times, *spent;
    char path[512];
};

#define TRIALS_TABLE                                                                                                   \
    "CREATE TABLE trials ("                                                                                            \
    " id INTEGER PRIMARY KEY,"                                                                                         \
    " device TEXT NOT NULL, architecture TEXT NOT NULL, kernels TEXT NOT NULL, regime TEXT NOT NULL,"                  \
    " op TEXT NOT NULL, k INTEGER NOT NULL, n INTEGER NOT NULL, \"group\" INTEGER NOT NULL,"                           \
    " zeros INTEGER NOT NULL, m INTEGER NOT NULL, epilogue TEXT NOT NULL DEFAULT 'none',"                              \
    " kernel TEXT NOT NULL, configuration TEXT NOT NULL,"                                                              \
    " status TEXT NOT NULL, message TEXT NOT NULL,"                                                                    \
    " us REAL, p20_us REAL, p80_us REAL, min_us REAL, low_us REAL, high_us REAL, error REAL,"                          \
    " samples INTEGER, sample_us BLOB," /* float32, in the order of measuring */                                       \
    " \"order\" INTEGER NOT NULL, seconds REAL NOT NULL, stop TEXT, clock TEXT,"                                       \
    " software TEXT, uuid TEXT, sm_mhz INTEGER, memory_mhz INTEGER, celsius INTEGER, watts REAL, throttle INTEGER,"    \
    " finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),"                                                \
    " UNIQUE (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue, kernel, configuration)"  \
    ") STRICT;"

/* Without id, and without epilogue, which version 1 did not have: a key can only be changed with its table. */
#define COLUMNS_1                                                                                                      \
    "device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, kernel, configuration, status,"             \
    " message, us, p20_us, p80_us, min_us, low_us, high_us, error, samples, sample_us, \"order\", seconds, stop,"      \
    " clock, software, uuid, sm_mhz, memory_mhz, celsius, watts, throttle, finished"

/* Trials against each other by turns: "KERNEL CONFIGURATION" a line for each arm, the medians of its rounds. */
#define FINALS_TABLE                                                                                                   \
    "CREATE TABLE finals ("                                                                                            \
    " id INTEGER PRIMARY KEY,"                                                                                         \
    " device TEXT NOT NULL, architecture TEXT NOT NULL, kernels TEXT NOT NULL, regime TEXT NOT NULL,"                  \
    " op TEXT NOT NULL, k INTEGER NOT NULL, n INTEGER NOT NULL, \"group\" INTEGER NOT NULL,"                           \
    " zeros INTEGER NOT NULL, m INTEGER NOT NULL, epilogue TEXT NOT NULL, arms TEXT NOT NULL,"                         \
    " status TEXT NOT NULL, message TEXT NOT NULL, seconds REAL NOT NULL, throttle INTEGER,"                           \
    " round_us BLOB," /* float32, one arm behind the other */                                                          \
    " software TEXT, uuid TEXT, finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),"                      \
    " UNIQUE (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue, arms)"                   \
    ") STRICT;"

#define REGRETS_TABLE                                                                                                  \
    "CREATE TABLE regrets ("                                                                                           \
    " id INTEGER PRIMARY KEY,"                                                                                         \
    " device TEXT NOT NULL, architecture TEXT NOT NULL, kernels TEXT NOT NULL, regime TEXT NOT NULL,"                  \
    " op TEXT NOT NULL, k INTEGER NOT NULL, n INTEGER NOT NULL, \"group\" INTEGER NOT NULL,"                           \
    " zeros INTEGER NOT NULL, m INTEGER NOT NULL, epilogue TEXT NOT NULL,"                                             \
    " kernel TEXT NOT NULL, configuration TEXT NOT NULL," /* the row's */                                              \
    " best_kernel TEXT NOT NULL, best_configuration TEXT NOT NULL, regret REAL NOT NULL,"                              \
    " finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),"                                                \
    " UNIQUE (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue)"                         \
    ") STRICT;"

/* A model's four GEMMs in so many layers as one graph, under the problem of gate_up: "KxN KERNEL CONFIGURATION" a line
 * for each; times are of all layers. */
#define CHAINS_TABLE                                                                                                   \
    "CREATE TABLE chains ("                                                                                            \
    " id INTEGER PRIMARY KEY,"                                                                                         \
    " device TEXT NOT NULL, architecture TEXT NOT NULL, kernels TEXT NOT NULL, regime TEXT NOT NULL,"                  \
    " op TEXT NOT NULL, k INTEGER NOT NULL, n INTEGER NOT NULL, \"group\" INTEGER NOT NULL,"                           \
    " zeros INTEGER NOT NULL, m INTEGER NOT NULL, epilogue TEXT NOT NULL,"                                             \
    " gemms TEXT NOT NULL, layers INTEGER NOT NULL, \"order\" INTEGER NOT NULL,"                                       \
    " status TEXT NOT NULL, message TEXT NOT NULL,"                                                                    \
    " us REAL, p20_us REAL, p80_us REAL, min_us REAL, low_us REAL, high_us REAL, error REAL,"                          \
    " samples INTEGER, sample_us BLOB, seconds REAL NOT NULL, stop TEXT, clock TEXT,"                                  \
    " software TEXT, uuid TEXT, sm_mhz INTEGER, memory_mhz INTEGER, celsius INTEGER, watts REAL, throttle INTEGER,"    \
    " finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),"                                                \
    " UNIQUE (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue, gemms, layers,"          \
    " \"order\")"                                                                                                      \
    ") STRICT;"

static const char schema[] = TRIALS_TABLE FINALS_TABLE REGRETS_TABLE CHAINS_TABLE;
static const char from_version_1[] = "ALTER TABLE trials RENAME TO trials_1;" TRIALS_TABLE
                                     "INSERT INTO trials (id, " COLUMNS_1 ") SELECT id, " COLUMNS_1 " FROM trials_1;"
                                     "DROP TABLE trials_1; PRAGMA user_version = 2;";
/* Version 2 called the status of a wrong result by another name. */
static const char from_version_2[] =
    "UPDATE trials SET status = 'correctness' WHERE status = 'wrong'; PRAGMA user_version = 3;";

static const char from_version_3[] = FINALS_TABLE "PRAGMA user_version = 4;";
static const char from_version_4[] = REGRETS_TABLE "PRAGMA user_version = 5;";
static const char from_version_5[] = CHAINS_TABLE "PRAGMA user_version = 6;";

/* ?1 ... ?11, as bind_problem numbers them. */
#define WHERE_PROBLEM                                                                                                  \
    " WHERE device = ?1 AND architecture = ?2 AND kernels = ?3 AND regime = ?4 AND op = ?5 AND k = ?6 AND n = ?7"      \
    " AND \"group\" = ?8 AND zeros = ?9 AND m = ?10 AND epilogue = ?11"

/* As read_result takes them. */
#define RESULT                                                                                                         \
    "status, message, us, p20_us, p80_us, min_us, low_us, high_us, error, seconds, samples, stop, clock, sm_mhz,"      \
    " memory_mhz, celsius, watts, throttle"

/* ?14 ... ?35, as bind_result numbers them. */
#define PUT_RESULT                                                                                                     \
    RESULT ", sample_us, \"order\", software, uuid)"                                                                   \
           " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,"       \
           " ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35)"

static const char find_sql[] =
    "SELECT " RESULT " FROM trials" WHERE_PROBLEM " AND kernel = ?12 AND configuration = ?13";

static const char put_sql[] =
    "INSERT OR REPLACE INTO trials (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue,"
    " kernel, configuration, " PUT_RESULT;

static const char replay_sql[] = "SELECT kernel, configuration FROM trials" WHERE_PROBLEM " ORDER BY \"order\", id";

static const char times_sql[] =
    "SELECT k, n, \"group\", zeros, m, epilogue, kernel, configuration, us FROM trials WHERE device = ?1"
    " AND architecture = ?2 AND kernels = ?3 AND regime = ?4 AND op = ?5 AND status = 'ok'";

#define SPENT_ON(table)                                                                                                \
    "SELECT seconds FROM " table " WHERE device = ?1 AND architecture = ?2 AND kernels = ?3 AND regime = ?4"           \
    " AND op = ?5 AND k = ?6 AND n = ?7 AND \"group\" = ?8 AND zeros = ?9"
static const char spent_sql[] = "SELECT sum(seconds) FROM (" SPENT_ON("trials") " UNION ALL " SPENT_ON(
    "finals") " UNION ALL " SPENT_ON("chains") ")";

static const char forget_sql[] = "DELETE FROM trials" WHERE_PROBLEM;

static const char find_final_sql[] =
    "SELECT status, message, seconds, throttle, round_us FROM finals" WHERE_PROBLEM " AND arms = ?12";
static const char put_final_sql[] =
    "INSERT OR REPLACE INTO finals (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue,"
    " arms, status, message, seconds, throttle, round_us, software, uuid)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
static const char forget_finals_sql[] = "DELETE FROM finals" WHERE_PROBLEM;

static const char put_regret_sql[] =
    "INSERT OR REPLACE INTO regrets (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue,"
    " kernel, configuration, best_kernel, best_configuration, regret)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
static const char forget_regret_sql[] = "DELETE FROM regrets" WHERE_PROBLEM;

static const char find_chain_sql[] =
    "SELECT " RESULT " FROM chains" WHERE_PROBLEM " AND gemms = ?12 AND layers = ?13 AND \"order\" = ?14";
static const char put_chain_sql[] =
    "INSERT OR REPLACE INTO chains (device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue,"
    " gemms, layers, " PUT_RESULT;
static const char forget_chains_sql[] = "DELETE FROM chains" WHERE_PROBLEM;

static int fail(const struct store *store, struct error *error) {
    int code = sqlite3_errcode(store->database);
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        return error_set(error,
                         "%s: the trial store is locked by another process; wait for it, or name another with --store",
                         store->path);
    if (code == SQLITE_NOTADB)
        return error_set(error, "%s: not a trial store (no SQLite database); remove it, or name another with --store",
                         store->path);
    return error_set(error, "%s: trial store: %s", store->path, sqlite3_errmsg(store->database));
}

static int execute(struct store *store, const char *sql, struct error *error) {
    return sqlite3_exec(store->database, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(store, error);
}

static int query_integer(struct store *store, const char *sql, int *value, struct error *error) {
    sqlite3_stmt *statement = NULL;
    int bad = sqlite3_prepare_v2(store->database, sql, -1, &statement, NULL) != SQLITE_OK ||
              sqlite3_step(statement) != SQLITE_ROW;
    if (!bad) *value = sqlite3_column_int(statement, 0);
    if (bad) fail(store, error);
    sqlite3_finalize(statement);
    return bad ? -1 : 0;
}

/* Inside a write transaction, so that of two processes one creates and the other finds. */
static int check_or_create(struct store *store, struct error *error) {
    int version = 0, application = 0, tables = 0;
    if (query_integer(store, "PRAGMA user_version", &version, error) ||
        query_integer(store, "PRAGMA application_id", &application, error) ||
        query_integer(store, "SELECT count(*) FROM sqlite_schema", &tables, error))
        return -1;
    if (!version && !application && !tables) {
        char sql[sizeof schema + 96];
        snprintf(sql, sizeof sql, "%s PRAGMA application_id = %d; PRAGMA user_version = %d;", schema, APPLICATION_ID,
                 STORE_VERSION);
        return execute(store, sql, error);
    }
    if (application != APPLICATION_ID)
        return error_set(error, "%s: a database, but not a trial store of tilebook; name another with --store",
                         store->path);
    if (version > STORE_VERSION)
        return error_set(error,
                         "%s: the trial store has version %d, this program reads up to %d; use the newer tilebook, or "
                         "name another store with --store",
                         store->path, version, STORE_VERSION);
    if (version <= 1 && execute(store, from_version_1, error)) return -1;
    if (version <= 2 && execute(store, from_version_2, error)) return -1;
    if (version <= 3 && execute(store, from_version_3, error)) return -1;
    if (version <= 4 && execute(store, from_version_4, error)) return -1;
    return version <= 5 ? execute(store, from_version_5, error) : 0;
}

static int set_up(struct store *store, struct error *error) {
    sqlite3_busy_timeout(store->database, BUSY_MILLISECONDS);
    if (execute(store, "BEGIN IMMEDIATE", error) || check_or_create(store, error)) return -1;
    if (execute(store, "COMMIT; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", error)) return -1;
    const struct {
        const char *sql;
        sqlite3_stmt **statement;
    } statements[] = {{find_sql, &store->find},
                      {put_sql, &store->put},
                      {forget_sql, &store->forget},
                      {find_final_sql, &store->find_final},
                      {put_final_sql, &store->put_final},
                      {forget_finals_sql, &store->forget_finals},
                      {put_regret_sql, &store->put_regret},
                      {forget_regret_sql, &store->forget_regret},
                      {find_chain_sql, &store->find_chain},
                      {put_chain_sql, &store->put_chain},
                      {forget_chains_sql, &store->forget_chains},
                      {replay_sql, &store->replay},
                      {times_sql, &store->times},
                      {spent_sql, &store->spent}};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (sqlite3_prepare_v2(store->database, statements[i].sql, -1, statements[i].statement, NULL) != SQLITE_OK)
            return fail(store, error);
    return 0;
}

int store_open(const char *path, struct store **result, struct error *error) {
    *result = NULL;
    struct store *store = calloc(1, sizeof *store);
    if (!store) return error_set(error, "out of memory");
    snprintf(store->path, sizeof store->path, "%s", path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int status = sqlite3_open_v2(path, &store->database, flags, NULL) == SQLITE_OK ? 0 : fail(store, error);
    if (!status) status = set_up(store, error);
    if (status) {
        store_close(store);
        return -1;
    }
    *result = store;
    return 0;
}

void store_close(struct store *store) {
    if (!store) return;
    sqlite3_finalize(store->find);
    sqlite3_finalize(store->put);
    sqlite3_finalize(store->forget);
    sqlite3_finalize(store->find_final);
    sqlite3_finalize(store->put_final);
    sqlite3_finalize(store->forget_finals);
    sqlite3_finalize(store->put_regret);
    sqlite3_finalize(store->forget_regret);
    sqlite3_finalize(store->find_chain);
    sqlite3_finalize(store->put_chain);
    sqlite3_finalize(store->forget_chains);
    sqlite3_finalize(store->replay);
    sqlite3_finalize(store->times);
    sqlite3_finalize(store->spent);
    sqlite3_close(store->database);
    free(store);
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text) {
    sqlite3_bind_text(statement, at, text, -1, SQLITE_TRANSIENT);
}

static void bind_scope(sqlite3_stmt *statement, const struct store_scope *scope, enum op op) {
    bind_text(statement, 1, scope->device);
    bind_text(statement, 2, scope->architecture);
    bind_text(statement, 3, scope->kernels);
    bind_text(statement, 4, scope->regime);
    bind_text(statement, 5, op_name(op));
}

static void bind_problem(sqlite3_stmt *statement, const struct store_scope *scope, const struct problem *problem) {
    bind_scope(statement, scope, problem->op);
    sqlite3_bind_int(statement, 6, problem->k);
    sqlite3_bind_int(statement, 7, problem->n);
    sqlite3_bind_int(statement, 8, problem->group);
    sqlite3_bind_int(statement, 9, problem->zeros);
    sqlite3_bind_int(statement, 10, problem->m);
    bind_text(statement, 11, epilogue_name(problem->epilogue));
}

static void bind_kernel(sqlite3_stmt *statement, const struct kernel *kernel, const struct config *config) {
    char name[64], text[MAX_CONFIG_TEXT];
    bind_text(statement, 12, kernel_full_name(kernel, name));
    bind_text(statement, 13, config_text(kernel, config, text));
}

static void copy_column(sqlite3_stmt *statement, int column, char *to, size_t size) {
    const unsigned char *text = sqlite3_column_text(statement, column);
    snprintf(to, size, "%s", text ? (const char *)text : "");
}

/* Column 0. */
static int read_status(const struct store *store, sqlite3_stmt *row, enum trial_status *status, struct error *error) {
    char text[16];
    copy_column(row, 0, text, sizeof text);
    int code = 0;
    while (code < TRIAL_STATUSES && strcmp(text, trial_status_name((enum trial_status)code))) code++;
    *status = (enum trial_status)code;
    if (code < TRIAL_STATUSES) return 0;
    return error_set(error, "%s: a trial has the unknown status '%s'; run again with --fresh", store->path, text);
}

static int read_result(const struct store *store, sqlite3_stmt *row, struct trial_result *result, struct error *error) {
    enum trial_status status;
    if (read_status(store, row, &status, error)) return -1;
    *result = (struct trial_result){
        .status = status,
        .us = sqlite3_column_double(row, 2),
        .p20_us = sqlite3_column_double(row, 3),
        .p80_us = sqlite3_column_double(row, 4),
        .min_us = sqlite3_column_double(row, 5),
        .low_us = sqlite3_column_double(row, 6),
        .high_us = sqlite3_column_double(row, 7),
        .error = sqlite3_column_double(row, 8),
        .seconds = sqlite3_column_double(row, 9),
        .samples = sqlite3_column_int(row, 10),
        .sm_mhz = sqlite3_column_int(row, 13),
        .memory_mhz = sqlite3_column_int(row, 14),
        .celsius = sqlite3_column_int(row, 15),
        .watts = sqlite3_column_double(row, 16),
        .throttle = (unsigned long long)sqlite3_column_int64(row, 17),
    };
    copy_column(row, 1, result->message, sizeof result->message);
    copy_column(row, 11, result->stop, sizeof result->stop);
    copy_column(row, 12, result->clock, sizeof result->clock);
    return 0;
}

int store_find(struct store *store, const struct store_scope *scope, const struct kernel *kernel,
               const struct problem *problem, const struct config *config, struct trial_result *result, bool *found,
               struct error *error) {
    bind_problem(store->find, scope, problem);
    bind_kernel(store->find, kernel, config);
    int code = sqlite3_step(store->find);
    *found = code == SQLITE_ROW;
    int status = *found ? read_result(store, store->find, result, error) : code == SQLITE_DONE ? 0 : fail(store, error);
    sqlite3_reset(store->find);
    return status;
}

static int run_once(struct store *store, sqlite3_stmt *statement, struct error *error) {
    int status = sqlite3_step(statement) == SQLITE_DONE ? 0 : fail(store, error);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

static void bind_result(sqlite3_stmt *row, const struct store_scope *scope, int order,
                        const struct trial_result *result) {
    const double figures[] = {result->us,     result->p20_us,  result->p80_us, result->min_us,
                              result->low_us, result->high_us, result->error,  result->seconds};
    bind_text(row, 14, trial_status_name(result->status));
    bind_text(row, 15, result->message);
    for (int i = 0; i < 8; i++) sqlite3_bind_double(row, 16 + i, figures[i]);
    sqlite3_bind_int(row, 24, result->samples);
    bind_text(row, 25, result->stop);
    bind_text(row, 26, result->clock);
    sqlite3_bind_int(row, 27, result->sm_mhz);
    sqlite3_bind_int(row, 28, result->memory_mhz);
    sqlite3_bind_int(row, 29, result->celsius);
    sqlite3_bind_double(row, 30, result->watts);
    sqlite3_bind_int64(row, 31, (sqlite3_int64)result->throttle);
    if (result->sample_us)
        sqlite3_bind_blob(row, 32, result->sample_us, result->samples * (int)sizeof(float), SQLITE_TRANSIENT);
    sqlite3_bind_int(row, 33, order);
    bind_text(row, 34, scope->software);
    bind_text(row, 35, scope->uuid);
}

int store_put(struct store *store, const struct store_scope *scope, const struct kernel *kernel,
              const struct problem *problem, const struct config *config, int order, const struct trial_result *result,
              struct error *error) {
    bind_problem(store->put, scope, problem);
    bind_kernel(store->put, kernel, config);
    bind_result(store->put, scope, order, result);
    return run_once(store, store->put, error);
}

int store_replay(struct store *store, const struct store_scope *scope, const struct problem *problem,
                 int (*visit)(void *context, const char *kernel, const char *configuration), void *context,
                 struct error *error) {
    sqlite3_stmt *row = store->replay;
    int status = 0, code = SQLITE_DONE;
    bind_problem(row, scope, problem);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW)
        status = visit(context, (const char *)sqlite3_column_text(row, 0), (const char *)sqlite3_column_text(row, 1));
    if (!status && code != SQLITE_DONE) status = fail(store, error);
    sqlite3_reset(row);
    return status;
}

static int read_problem(sqlite3_stmt *row, enum op op, struct problem *problem, struct error *error) {
    *problem = (struct problem){.op = op,
                                .k = sqlite3_column_int(row, 0),
                                .n = sqlite3_column_int(row, 1),
                                .group = sqlite3_column_int(row, 2),
                                .zeros = sqlite3_column_int(row, 3),
                                .m = sqlite3_column_int(row, 4)};
    return epilogue_parse((const char *)sqlite3_column_text(row, 5), &problem->epilogue, error);
}

int store_times(struct store *store, const struct store_scope *scope, enum op op,
                int (*visit)(void *context, const struct problem *problem, const char *kernel,
                             const char *configuration, double us),
                void *context, struct error *error) {
    sqlite3_stmt *row = store->times;
    int status = 0, code = SQLITE_DONE;
    struct problem problem;
    bind_scope(row, scope, op);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        status = read_problem(row, op, &problem, error);
        if (!status)
            status = visit(context, &problem, (const char *)sqlite3_column_text(row, 6),
                           (const char *)sqlite3_column_text(row, 7), sqlite3_column_double(row, 8));
    }
    if (!status && code != SQLITE_DONE) status = fail(store, error);
    sqlite3_reset(row);
    return status;
}

int store_spent(struct store *store, const struct store_scope *scope, const struct problem *problem, double *seconds,
                struct error *error) {
    sqlite3_stmt *row = store->spent;
    const char *const texts[] = {scope->device, scope->architecture, scope->kernels, scope->regime,
                                 op_name(problem->op)};
    const int numbers[] = {problem->k, problem->n, problem->group, problem->zeros};
    for (int i = 0; i < 5; i++) bind_text(row, 1 + i, texts[i]);
    for (int i = 0; i < 4; i++) sqlite3_bind_int(row, 6 + i, numbers[i]);
    int status = sqlite3_step(row) == SQLITE_ROW ? 0 : fail(store, error);
    if (!status) *seconds = sqlite3_column_double(row, 0);
    sqlite3_reset(row);
    return status;
}

int store_forget(struct store *store, const struct store_scope *scope, const struct problem *problem,
                 struct error *error) {
    sqlite3_stmt *const statements[] = {store->forget, store->forget_finals, store->forget_regret,
                                        store->forget_chains};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        bind_problem(statements[i], scope, problem);
        if (run_once(store, statements[i], error)) return -1;
    }
    return 0;
}

/* --- finals --- */

static void bind_arms(sqlite3_stmt *statement, const struct trial *const *arms, int count) {
    char text[(FINALISTS + 2) * (64 + MAX_CONFIG_TEXT + 2)] = "", name[64], config[MAX_CONFIG_TEXT];
    size_t used = 0;
    for (int i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s %s\n", kernel_full_name(arms[i]->kernel, name),
                                 config_text(arms[i]->kernel, &arms[i]->config, config));
    bind_text(statement, 12, text);
}

/* Not found are rounds of another number. */
static int read_final(const struct store *store, sqlite3_stmt *row, int count, struct trial_result *result, bool *found,
                      struct error *error) {
    size_t bytes = (size_t)count * FINAL_ROUNDS * sizeof(float);
    *result = (struct trial_result){.seconds = sqlite3_column_double(row, 2),
                                    .throttle = (unsigned long long)sqlite3_column_int64(row, 3)};
    copy_column(row, 1, result->message, sizeof result->message);
    if (read_status(store, row, &result->status, error)) return -1;
    if (result->status != TRIAL_OK) return 0;
    *found = (size_t)sqlite3_column_bytes(row, 4) == bytes;
    if (!*found) return 0;
    result->sample_us = malloc(bytes);
    if (!result->sample_us) return error_set(error, "out of memory");
    memcpy(result->sample_us, sqlite3_column_blob(row, 4), bytes);
    result->samples = count * FINAL_ROUNDS;
    return 0;
}

int store_find_final(struct store *store, const struct store_scope *scope, const struct problem *problem,
                     const struct trial *const *arms, int count, struct trial_result *result, bool *found,
                     struct error *error) {
    sqlite3_stmt *row = store->find_final;
    bind_problem(row, scope, problem);
    bind_arms(row, arms, count);
    int code = sqlite3_step(row);
    *found = code == SQLITE_ROW;
    int status = *found                ? read_final(store, row, count, result, found, error)
                 : code == SQLITE_DONE ? 0
                                       : fail(store, error);
    sqlite3_reset(row);
    return status;
}

int store_put_final(struct store *store, const struct store_scope *scope, const struct problem *problem,
                    const struct trial *const *arms, int count, const struct trial_result *result,
                    struct error *error) {
    sqlite3_stmt *row = store->put_final;
    bind_problem(row, scope, problem);
    bind_arms(row, arms, count);
    bind_text(row, 13, trial_status_name(result->status));
    bind_text(row, 14, result->message);
    sqlite3_bind_double(row, 15, result->seconds);
    sqlite3_bind_int64(row, 16, (sqlite3_int64)result->throttle);
    if (result->sample_us)
        sqlite3_bind_blob(row, 17, result->sample_us, result->samples * (int)sizeof(float), SQLITE_TRANSIENT);
    bind_text(row, 18, scope->software);
    bind_text(row, 19, scope->uuid);
    return run_once(store, row, error);
}

/* --- regrets --- */

static void bind_trial(sqlite3_stmt *statement, int at, const struct trial *trial) {
    char name[64], config[MAX_CONFIG_TEXT];
    bind_text(statement, at, kernel_full_name(trial->kernel, name));
    bind_text(statement, at + 1, config_text(trial->kernel, &trial->config, config));
}

int store_put_regret(struct store *store, const struct store_scope *scope, const struct problem *problem,
                     const struct trial *row, const struct trial *best, double regret, struct error *error) {
    sqlite3_stmt *statement = store->put_regret;
    bind_problem(statement, scope, problem);
    bind_trial(statement, 12, row);
    bind_trial(statement, 14, best);
    sqlite3_bind_double(statement, 16, regret);
    return run_once(store, statement, error);
}

/* --- chains --- */

static void bind_chain(sqlite3_stmt *row, const struct store_scope *scope, const struct store_chain *chain) {
    char text[CHAIN_GEMMS * (32 + 64 + MAX_CONFIG_TEXT)] = "", name[64], config[MAX_CONFIG_TEXT];
    size_t used = 0;
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        const struct chain_gemm *gemm = &chain->gemms[g];
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%dx%d %s %s\n", gemm->problem.k, gemm->problem.n,
                             kernel_full_name(gemm->kernel, name), config_text(gemm->kernel, &gemm->config, config));
    }
    bind_problem(row, scope, &chain->gemms[CHAIN_GATE_UP].problem);
    bind_text(row, 12, text);
    sqlite3_bind_int(row, 13, chain->layers);
}

int store_find_chain(struct store *store, const struct store_scope *scope, const struct store_chain *chain,
                     struct trial_result *result, bool *found, struct error *error) {
    sqlite3_stmt *row = store->find_chain;
    bind_chain(row, scope, chain);
    sqlite3_bind_int(row, 14, chain->order);
    int code = sqlite3_step(row);
    *found = code == SQLITE_ROW;
    int status = *found ? read_result(store, row, result, error) : code == SQLITE_DONE ? 0 : fail(store, error);
    sqlite3_reset(row);
    return status;
}

int store_put_chain(struct store *store, const struct store_scope *scope, const struct store_chain *chain,
                    const struct trial_result *result, struct error *error) {
    bind_chain(store->put_chain, scope, chain);
    bind_result(store->put_chain, scope, chain->order, result);
    return run_once(store, store->put_chain, error);
}

/* --- all trials --- */

static const char each_sql[] =
    "SELECT " RESULT ", sample_us, device, architecture, kernels, regime, software, uuid, op, epilogue, kernel,"
    " configuration, finished, k, n, \"group\", zeros, m FROM trials"
    " ORDER BY device, architecture, kernels, regime, op, k, n, \"group\", zeros, m, epilogue, \"order\", id";

static const char *text_column(sqlite3_stmt *row, int column) {
    const unsigned char *text = sqlite3_column_text(row, column);
    return text ? (const char *)text : "";
}

static int read_trial(const struct store *store, sqlite3_stmt *row, struct stored_trial *trial, struct error *error) {
    enum { SAMPLES = 18, TEXTS, NUMBERS = TEXTS + 11 };
    const char **texts[] = {&trial->scope.device,
                            &trial->scope.architecture,
                            &trial->scope.kernels,
                            &trial->scope.regime,
                            &trial->scope.software,
                            &trial->scope.uuid,
                            &trial->op,
                            &trial->epilogue,
                            &trial->kernel,
                            &trial->configuration,
                            &trial->finished};
    int *numbers[] = {&trial->k, &trial->n, &trial->group, &trial->zeros, &trial->m};
    if (read_result(store, row, &trial->result, error)) return -1;
    for (int i = 0; i < NUMBERS - TEXTS; i++) *texts[i] = text_column(row, TEXTS + i);
    for (int i = 0; i < 5; i++) *numbers[i] = sqlite3_column_int(row, NUMBERS + i);
    size_t bytes = (size_t)sqlite3_column_bytes(row, SAMPLES);
    trial->result.samples = (int)(bytes / sizeof(float));
    if (!bytes) return 0;
    trial->result.sample_us = malloc(bytes);
    if (!trial->result.sample_us) return error_set(error, "out of memory");
    memcpy(trial->result.sample_us, sqlite3_column_blob(row, SAMPLES), bytes);
    return 0;
}

int store_each(struct store *store, int (*visit)(void *context, const struct stored_trial *trial), void *context,
               struct error *error) {
    sqlite3_stmt *row = NULL;
    int status = sqlite3_prepare_v2(store->database, each_sql, -1, &row, NULL) == SQLITE_OK ? 0 : fail(store, error);
    while (!status) {
        struct stored_trial trial = {.k = 0};
        int code = sqlite3_step(row);
        if (code == SQLITE_DONE) break;
        status = code == SQLITE_ROW ? read_trial(store, row, &trial, error) : fail(store, error);
        if (!status) status = visit(context, &trial);
        free(trial.result.sample_us);
    }
    sqlite3_finalize(row);
    return status;
}
