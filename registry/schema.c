#include "registry/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry/migrations.h"

enum { AHEAD_MAX = 1 }; /* migrations that we do not know, and that by the rule only expand */

static int version_at(const PGresult *applied, int row) {
    return atoi(PQgetvalue(applied, row, 0));
}

enum schema_fit schema_judge(const PGresult *applied, int *ret_version) {
    int rows = PQntuples(applied), known = (int)migration_count;
    *ret_version = rows > 0 ? version_at(applied, rows - 1) : 0;
    for (int row = 0; row < rows && row < known; row++)
        if (version_at(applied, row) != migrations[row].version ||
            strcmp(PQgetvalue(applied, row, 2), migrations[row].checksum) != 0) {
            *ret_version = version_at(applied, row);
            return SCHEMA_CHANGED;
        }
    if (rows < known)
        return SCHEMA_OLDER;
    return *ret_version <= known + AHEAD_MAX ? SCHEMA_FITS : SCHEMA_NEWER;
}

void schema_describe(enum schema_fit fit, int version, char *ret_text, unsigned size) {
    int own = (int)migration_count;
    if (fit == SCHEMA_OLDER)
        snprintf(ret_text, size,
                 "the database has schema %d, this duragate needs %d: run duragate migrate",
                 version, own);
    else if (fit == SCHEMA_NEWER)
        snprintf(ret_text, size,
                 "the database has schema %d, this duragate runs on %d and %d: install the newer "
                 "release that made it, or restore a backup of the database from before",
                 version, own, own + AHEAD_MAX);
    else
        snprintf(ret_text, size,
                 "migration %d was applied in another form than this duragate has: use the release "
                 "that applied it, or start with an empty database",
                 version);
}
