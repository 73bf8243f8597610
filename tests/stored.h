/* What the store of `tilebook tune --out @/tiles.txt` holds. */
#ifndef TILEBOOK_TESTS_STORED_H
#define TILEBOOK_TESTS_STORED_H

#include "tests/command.h"

#include <sqlite3.h>

static long stored(const char *sql) {
    sqlite3 *database;
    sqlite3_stmt *statement = NULL;
    long count = 0;
    if (sqlite3_open_v2(in_folder("trials.sqlite"), &database, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        count = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return count;
}

static long stored_trials(void) {
    return stored("SELECT count(*) FROM trials");
}

#endif
