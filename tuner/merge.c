#include "tuner/merge.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tuner/store.h"

enum { PATH = 512, SQL = 4096 };

/* What a row is the only one of: a problem in a scope, and for some tables more. */
#define SAME_PROBLEM                                                                                                   \
    "here.device = there.device AND here.architecture = there.architecture AND here.kernels = there.kernels"           \
    " AND here.regime = there.regime AND here.op = there.op AND here.k = there.k AND here.n = there.n"                 \
    " AND here.\"group\" = there.\"group\" AND here.zeros = there.zeros AND here.m = there.m"                          \
    " AND here.epilogue = there.epilogue"

static const struct {
    const char *name, *same;
} tables[] = {
    {"trials", SAME_PROBLEM " AND here.kernel = there.kernel AND here.configuration = there.configuration"},
    {"finals", SAME_PROBLEM " AND here.arms = there.arms"},
    {"regrets", SAME_PROBLEM},
    {"chains",
     SAME_PROBLEM " AND here.gemms = there.gemms AND here.layers = there.layers AND here.\"order\" = there.\"order\""},
};

static int fail(sqlite3 *database, const char *path, struct error *error) {
    return error_set(error, "%s: trial store: %s", path, sqlite3_errmsg(database));
}

/* The first column of the one row; texts go to `text`. */
static int query(sqlite3 *database, const char *sql, int *value, char *text, size_t size) {
    sqlite3_stmt *statement = NULL;
    bool good =
        sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    if (good && value) *value = sqlite3_column_int(statement, 0);
    if (good && text) snprintf(text, size, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return good ? 0 : -1;
}

static int count_rows(sqlite3 *database, const char *schema, const char *table, int *rows) {
    char sql[96];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s.%s", schema, table);
    return query(database, sql, rows, NULL, 0);
}

/* What is not here, or was finished later there. */
static int merge_table(sqlite3 *database, int table, struct merged *merged) {
    char columns[SQL / 4], sql[SQL];
    const char *name = tables[table].name;
    int before, after, rows;
    snprintf(sql, sizeof sql,
             "SELECT group_concat('\"' || name || '\"') FROM pragma_table_info('%s') WHERE name != 'id'", name);
    if (query(database, sql, NULL, columns, sizeof columns) || count_rows(database, "main", name, &before) ||
        count_rows(database, "other", name, &rows))
        return -1;
    snprintf(sql, sizeof sql,
             "INSERT OR REPLACE INTO main.%s (%s) SELECT %s FROM other.%s AS there WHERE NOT EXISTS"
             " (SELECT 1 FROM main.%s AS here WHERE %s AND here.finished >= there.finished)",
             name, columns, columns, name, name, tables[table].same);
    if (sqlite3_exec(database, sql, NULL, NULL, NULL) != SQLITE_OK) return -1;
    int taken = sqlite3_changes(database);
    if (count_rows(database, "main", name, &after)) return -1;
    merged->rows += rows;
    merged->added += after - before;
    merged->newer += taken - (after - before);
    return 0;
}

static int merge_tables(sqlite3 *database, struct merged *merged) {
    if (sqlite3_exec(database, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) return -1;
    for (int i = 0; i < (int)(sizeof tables / sizeof *tables); i++)
        if (merge_table(database, i, merged)) return -1; /* closing rolls back */
    return sqlite3_exec(database, "COMMIT", NULL, NULL, NULL) == SQLITE_OK ? 0 : -1;
}

static int merge_copy(const char *into, const char *copy, struct merged *merged, struct error *error) {
    sqlite3 *database = NULL;
    sqlite3_stmt *attach = NULL;
    bool good = sqlite3_open(into, &database) == SQLITE_OK && sqlite3_busy_timeout(database, 2000) == SQLITE_OK &&
                sqlite3_prepare_v2(database, "ATTACH ?1 AS other", -1, &attach, NULL) == SQLITE_OK &&
                sqlite3_bind_text(attach, 1, copy, -1, SQLITE_STATIC) == SQLITE_OK &&
                sqlite3_step(attach) == SQLITE_DONE;
    sqlite3_finalize(attach);
    int status = good && !merge_tables(database, merged) ? 0 : fail(database, into, error);
    sqlite3_close(database);
    return status;
}

/* Into a file of its own, where it can be migrated. */
static int copy_store(const char *from, const char *copy, struct error *error) {
    sqlite3 *source = NULL, *target = NULL;
    sqlite3_backup *backup = NULL;
    int version = 0, status = 0;
    if (sqlite3_open_v2(from, &source, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        query(source, "PRAGMA user_version", &version, NULL, 0))
        status = fail(source, from, error);
    else if (!version)
        status = error_set(error, "%s: not a trial store of tilebook", from);
    else if (sqlite3_open(copy, &target) != SQLITE_OK ||
             !(backup = sqlite3_backup_init(target, "main", source, "main")) ||
             sqlite3_backup_step(backup, -1) != SQLITE_DONE)
        status = fail(target, copy, error);
    sqlite3_backup_finish(backup);
    sqlite3_close(target);
    sqlite3_close(source);
    return status;
}

/* Opening makes a store, checks and migrates it. */
static int settle(const char *path, struct error *error) {
    struct store *store;
    if (store_open(path, &store, error)) return -1;
    store_close(store);
    return 0;
}

int merge_store(const char *into, const char *from, struct merged *merged, struct error *error) {
    char copy[PATH];
    *merged = (struct merged){0};
    if (snprintf(copy, sizeof copy, "%s.%ld.copy", into, (long)getpid()) >= PATH)
        return error_set(error, "%s: the path is too long", into);
    int status = copy_store(from, copy, error);
    if (!status && settle(copy, error)) status = error_prefix(error, "a copy of %s", from);
    if (!status) status = settle(into, error) || merge_copy(into, copy, merged, error) ? -1 : 0;
    unlink(copy);
    return status;
}
