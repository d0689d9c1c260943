/*
 * Who calls, and may they: the one place where API keys are read and rights are checked.
 */
#pragma once

#include "common/slice.h"
#include "gateway/http/http.h"
#include "provisioning/route.h"
#include "registry/registry.h"

/* "Bearer <key id>.<secret>", split at the last dot. False for anything else. Pure. */
bool auth_split_bearer(struct slice header, struct slice *ret_key_id, struct slice *ret_secret);

/*
 * May this principal use this route for this tenant (empty: the path names none)? 0;
 * DG_ERR_NOT_FOUND for another tenant's, which looks as if it did not exist; DG_ERR_NOT_AUTHORIZED.
 * Pure.
 */
DG_NODISCARD int auth_permit(const struct provisioning_route *route,
                             const struct registry_identity *principal, struct slice tenant);

/* What the registry says of a login that a request waits for, freed; worker's thread. The request
 * with its principal (*ret_err 0), or refused; NULL: its client has gone. */
struct provisioning_call *auth_take_login(struct mail *mail, void *receiver, int *ret_err);

/* Of every /v1 route. begin: checks the key and the right before a byte of the body is read.
 * handle: runs the row that route->context points to. */
void auth_begin(struct http_exchange *x, const struct http_route *route);
void auth_handle(struct http_exchange *x, const struct http_route *route);
