#include "provisioning/operations.h"

#include "common/limits.h"
#include "common/metrics.h"
#include "provisioning/worker.h"

static const char text_plain[] = "text/plain; charset=utf-8";

void operations_healthz(struct http_exchange *x, const struct http_route *route) {
    http_respond(x, 200, text_plain, slice_from_string("alive\n"));
}

void operations_readyz(struct http_exchange *x, const struct http_route *route) {
    const struct provisioning_health *health = &provisioning_state(http_worker(x))->health;
    struct buffer why = {0};
    if (health->ready(health->context, &why)) {
        http_respond(x, 200, text_plain, slice_from_string("ready\n"));
    } else {
        char detail[512];
        size_t size = buffer_size(&why) < sizeof(detail) ? buffer_size(&why) : sizeof(detail) - 1;
        memcpy(detail, buffer_slice(&why).data ? (const char *)buffer_slice(&why).data : "", size);
        detail[size] = '\0';
        http_add_header(x, "Retry-After", "2");
        http_respond_problem(x, DG_ERR_UNAVAILABLE, detail);
    }
    buffer_free(&why);
}

/* The exposition plus one row that says what is running (Prometheus' usual *_build_info). */
static int print_metrics(struct buffer *out) {
    static const char build_info[] =
        "# HELP duragate_build_info Always 1; the version is the label\n"
        "# TYPE duragate_build_info gauge\n"
        "duragate_build_info{version=\"" DURAGATE_VERSION "\"} 1\n";
    int err = metrics_print(out);
    if (err < 0)
        return err;
    return buffer_append(out, build_info, sizeof(build_info) - 1, LIMIT_OUTPUT_BYTES);
}

void operations_metrics(struct http_exchange *x, const struct http_route *route) {
    struct buffer out = {0};
    int err = print_metrics(&out);
    if (err < 0)
        http_respond_problem(x, err, "");
    else
        http_respond(x, 200, "text/plain; version=0.0.4; charset=utf-8", buffer_slice(&out));
    buffer_free(&out);
}
