/*
 * Wills whose time has come when their device has no connection: the registry is asked whether the
 * device may still leave it (what was revoked, disabled or deleted meanwhile leaves none), then it
 * is stored. While there is no answer it waits, and the device may come back.
 */
#include <stdio.h>

#include "gateway/mqtt/endpoint_internal.h"

static void answered(struct mqtt_worker *mqtt, unsigned index, int err, bool is_allowed,
                     struct registry_policy *policy) {
    int64_t device_key = mqtt->wills_asked[index].device_key;
    struct claim *claim =
        claims_take_will(mqtt->worker, device_key, mqtt->wills_asked[index].due_ms);
    mqtt->wills_asked[index].device_key = 0;
    if (claim && err < 0)
        mqtt_kept_defer_will(mqtt, claim);
    else if (claim)
        mqtt_kept_leave_will(mqtt, claim, is_allowed, policy);
}

/* What the tenant asks of payloads now. */
static int read_policy(const struct registry_request *answer, struct registry_policy **ret_policy) {
    const char *text = answer->row_count > 0 ? registry_value(answer, 0, 0) : NULL;
    char detail[REGISTRY_ERROR_SIZE];
    if (!text)
        return 0;
    int err = registry_policy_parse(slice_make(NULL, 0), slice_from_string(text), 1,
                                    REGISTRY_POLICY_LENIENT, ret_policy, detail, sizeof(detail));
    return err == DG_ERR_NO_MEMORY ? err : 0; /* one that cannot be read asks for nothing */
}

static void on_answer(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct registry_request *request = (struct registry_request *)(void *)mail;
    struct mqtt_worker *mqtt = mqtt_of(worker);
    struct registry_policy *policy = NULL;
    int err = request->err < 0 ? request->err : read_policy(request, &policy);
    answered(mqtt, (unsigned)request->owner, err, request->row_count > 0, policy);
    registry_policy_release(policy);
    if (err == 0)
        mqtt_wills_ask(mqtt); /* else the next sweep does */
    registry_request_free(request);
}

static int add_number(struct registry_request *request, int64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    return registry_request_add(request, slice_from_string(text));
}

static int ask(struct mqtt_worker *mqtt, unsigned index, const struct session_will *will) {
    struct will_content content;
    will_read(will, &content);
    struct registry_request *request = registry_request_new(STATEMENT_WILL_IS_ALLOWED);
    if (!request)
        return DG_ERR_NO_MEMORY;
    int err = add_number(request, will->device_key);
    if (err == 0)
        err = add_number(request, content.credential_key);
    if (err < 0) {
        registry_request_free(request);
        return err;
    }
    request->mail.deliver = on_answer;
    request->reply_to = &mqtt->worker->mailbox;
    request->owner = index;
    request->account = registry_account_of_wills(mqtt->worker->index);
    request->scope_tenant_key = content.tenant_key;
    registry_execute(mqtt->registry, request);
    return 0;
}

void mqtt_wills_ask(struct mqtt_worker *mqtt) {
    for (unsigned i = 0; i < LIMIT_WILLS_ASKED; i++) {
        if (mqtt->wills_asked[i].device_key != 0)
            continue;
        const struct session_will *will = claims_next_will(mqtt->worker, mqtt->worker->wall_ms);
        if (!will)
            return;
        mqtt->wills_asked[i].device_key = will->device_key;
        mqtt->wills_asked[i].due_ms = will->due.at_ms;
        int err = ask(mqtt, i, will);
        if (err < 0)
            answered(mqtt, i, err, false, NULL);
    }
}
