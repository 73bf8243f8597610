/* What the store in the folder, @/trials.sqlite, holds; somebody may write at the same time. */
#ifndef TILEBOOK_TESTS_STORED_H
#define TILEBOOK_TESTS_STORED_H

#include "tests/command.h"

#include <sqlite3.h>

static inline long stored(const char *sql) {
    sqlite3 *database;
    sqlite3_stmt *statement = NULL;
    long value = 0;
    if (sqlite3_open_v2(in_folder("trials.sqlite"), &database, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK) {
        sqlite3_busy_timeout(database, 2000);
        if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK &&
            sqlite3_step(statement) == SQLITE_ROW)
            value = sqlite3_column_int(statement, 0);
    }
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return value;
}

static inline long stored_trials(void) {
    return stored("SELECT count(*) FROM trials");
}

#endif
