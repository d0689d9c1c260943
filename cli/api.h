/* One call of the gateway's HTTP API, by libcurl. Blocking; command line only. */
#pragma once

#include <jansson.h>

#include "cli/command.h"

struct api_answer {
    long status; /* 0: no answer; error says why */
    char *body;  /* NUL-terminated, owned */
    size_t size_bytes;
    bool is_unreachable; /* nobody answers at the address */
    char error[256];
};

/* method and path ("/v1/tenants"); body NULL or JSON. Always fills in the answer. */
void api_call(struct cli_run *run, const char *method, const char *path, const char *body,
              struct api_answer *ret_answer);
/* ... of a request that may take so much longer. */
void api_call_for(struct cli_run *run, const char *method, const char *path, const char *body,
                  long more_s, struct api_answer *ret_answer);
/* ... with one more header, or NULL. */
void api_call_with(struct cli_run *run, const char *method, const char *path, const char *body,
                   const char *header, long more_s, struct api_answer *ret_answer);
/* PUT of what is not there yet: status 412 when it is. */
void api_create(struct cli_run *run, const char *path, const char *body,
                struct api_answer *ret_answer);
void api_answer_free(struct api_answer *answer);

/* Prints what went wrong (the problem's detail, or the transport's error); returns the exit code.
 */
int api_fail(struct cli_run *run, const struct api_answer *answer);

/* GET of all pages (path may end in a query): the first one as it came, with the following ones'
 * array `member` behind its own. NULL after a printed error. */
json_t *api_fetch_pages(struct cli_run *run, const char *path, const char *member, int *ret_code);

/* Appends text to a path, percent-encoded. */
void api_path_append(char *path, size_t path_size, const char *text);
