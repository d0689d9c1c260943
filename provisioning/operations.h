/* Handlers without authentication: is the process alive, may traffic come, metrics. */
#pragma once

#include "gateway/http/http.h"

void operations_healthz(struct http_exchange *x, const struct http_route *route);
void operations_readyz(struct http_exchange *x, const struct http_route *route);
void operations_metrics(struct http_exchange *x, const struct http_route *route);
