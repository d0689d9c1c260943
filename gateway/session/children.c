#include "gateway/session/children.h"

#include <stdlib.h>

enum { KEY_SIZE = sizeof(int64_t) + LIMIT_DEVICE_ID_BYTES };

static size_t key_size(size_t name_size) {
    return offsetof(struct child, name) - offsetof(struct child, tenant_key) + name_size;
}

static void unlink_child(struct children *children, struct child *child) {
    *(child->newer ? &child->newer->older : &children->newest) = child->older;
    *(child->older ? &child->older->newer : &children->oldest) = child->newer;
}

static void link_newest(struct children *children, struct child *child) {
    child->newer = NULL;
    child->older = children->newest;
    *(children->newest ? &children->newest->newer : &children->oldest) = child;
    children->newest = child;
}

static struct child *find(struct children *children, int64_t tenant_key, struct slice name) {
    uint8_t key[KEY_SIZE];
    struct child *child;
    if (name.size > LIMIT_DEVICE_ID_BYTES)
        return NULL;
    memcpy(key, &tenant_key, sizeof(tenant_key));
    memcpy(key + sizeof(tenant_key), name.data, name.size);
    HASH_FIND(hh, children->by_name, key, key_size(name.size), child);
    return child;
}

static void remove_child(struct children *children, struct child *child) {
    HASH_DELETE(hh, children->by_name, child);
    unlink_child(children, child);
    if (child->device_key != 0)
        device_map_remove(&children->by_key, child->device_key);
    children->count--;
    free(child->via);
    free(child);
}

int children_may(struct children *children, int64_t tenant_key, struct slice gateway,
                 struct slice name, uint64_t now_ms, const struct child **ret_child) {
    struct child *child = find(children, tenant_key, name);
    if (!child)
        return name.size > LIMIT_DEVICE_ID_BYTES ? DG_ERR_VIA : CHILD_UNKNOWN;
    if (child != children->newest) {
        unlink_child(children, child);
        link_newest(children, child);
    }
    int err = child->err;
    if (err == 0 && !registry_is_listed(child->via, gateway))
        err = DG_ERR_VIA;
    if (err < 0)
        return now_ms - child->asked_ms < LIMIT_CHILD_REFUSED_MS ? err : CHILD_UNKNOWN;
    *ret_child = child;
    return 0;
}

static struct child *make(struct registry_child_query *answer, uint64_t now_ms) {
    size_t name_size = strnlen(answer->child, LIMIT_DEVICE_ID_BYTES);
    struct child *child = malloc(sizeof(*child) + name_size);
    if (!child)
        return NULL;
    *child = (struct child){
        .asked_ms = now_ms,
        .err = answer->err == 0 || answer->err == DG_ERR_VIA ? answer->err : DG_ERR_UNAVAILABLE,
        .tenant_key = answer->tenant_key,
        .name_size = (uint8_t)name_size};
    memcpy(child->name, answer->child, name_size);
    if (answer->err == 0) {
        child->device_key = answer->device_key;
        child->partition = answer->partition;
        memcpy(child->group, answer->group, sizeof(child->group));
        child->via = answer->via;
        answer->via = NULL;
    }
    return child;
}

int children_store(struct children *children, struct registry_child_query *answer,
                   uint64_t now_ms) {
    struct child *child = device_map_reserve(&children->by_key) == 0 ? make(answer, now_ms) : NULL;
    if (!child)
        return DG_ERR_NO_MEMORY;
    struct child *old =
        find(children, child->tenant_key, slice_make(child->name, child->name_size));
    if (old)
        remove_child(children, old);
    else if (children->count == LIMIT_CHILDREN_PER_WORKER)
        remove_child(children, children->oldest);
    if (child->device_key != 0) {
        children_forget(children, child->device_key);
        device_map_set(&children->by_key, child->device_key, (uintptr_t)child);
    }
    HASH_ADD_KEYPTR(hh, children->by_name, &child->tenant_key, key_size(child->name_size), child);
    link_newest(children, child);
    children->count++;
    return 0;
}

void children_forget(struct children *children, int64_t device_key) {
    uint64_t value;
    if (device_map_get(&children->by_key, device_key, &value))
        remove_child(children, (struct child *)(uintptr_t)value);
}

void children_free(struct children *children) {
    while (children->newest)
        remove_child(children, children->newest);
    device_map_free(&children->by_key);
}
