/* The migrations as embed_migrations.py wrote them: all schemas/NNNN_*.sql, by number. */
#pragma once

struct migration {
    int version;
    const char *name; /* file name without its ending */
    const char *sql;
    char checksum[65]; /* SHA-256 of the file, lower-case hex */
};

extern const struct migration migrations[];
extern const unsigned migration_count;
