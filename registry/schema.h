/*
 * Which schema a duragate runs on: its own and the one after it, so that `duragate migrate` of the
 * next release may run while this one serves (docs/upgrade.md). A schema's number is that of its
 * newest migration. Pure but for schema_judge()'s reading of a result.
 */
#pragma once

#include <libpq-fe.h>

enum schema_fit {
    SCHEMA_UNKNOWN, /* not asked yet */
    SCHEMA_UNREACHED,
    SCHEMA_FITS,
    SCHEMA_OLDER,   /* duragate migrate has to run */
    SCHEMA_NEWER,   /* by more than one */
    SCHEMA_CHANGED, /* a migration was applied in another form than ours */
};

/* What schema_judge() reads. */
#define SCHEMA_SQL "select version, name, checksum from schema_migration order by 1"

/* ret_version: of the database; of the migration that differs when SCHEMA_CHANGED. */
enum schema_fit schema_judge(const PGresult *applied, int *ret_version);

/* A sentence for people about a fit that is none. */
void schema_describe(enum schema_fit fit, int version, char *ret_text, unsigned size);
