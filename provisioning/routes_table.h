/*
 * Every route of the management listener.
 * ROUTE(id, method, path, scope, roles, largest body in bytes, handler, resource, summary)
 * OPERATION(id, method, path, handler, summary): without authentication.
 * schemas/openapi.yaml describes the same routes; a test compares the two.
 */
/* clang-format off */
ROUTE(LIST_TENANTS,       GET,    "/v1/tenants",          OWN,      READ,    0,             resource_list,   tenant, "List tenants")
ROUTE(GET_TENANT,         GET,    "/v1/tenants/{tenant}", TENANT,   READ,    0,             resource_get,    tenant, "Show one tenant")
ROUTE(PUT_TENANT,         PUT,    "/v1/tenants/{tenant}", PLATFORM, ADMIN,   OBJECT_BYTES,  resource_put,    tenant, "Create or replace a tenant")
ROUTE(PATCH_TENANT,       PATCH,  "/v1/tenants/{tenant}", PLATFORM, ADMIN,   OBJECT_BYTES,  resource_patch,  tenant, "Change members of a tenant")
ROUTE(DELETE_TENANT,      DELETE, "/v1/tenants/{tenant}", PLATFORM, ADMIN,   0,             resource_delete, tenant, "Delete a tenant with all that is in it")

ROUTE(GET_POLICY,         GET,    "/v1/tenants/{tenant}/policy", TENANT, READ,  0,            resource_get,   policy, "Show what a tenant asks of its devices' traffic")
ROUTE(PUT_POLICY,         PUT,    "/v1/tenants/{tenant}/policy", TENANT, ADMIN, POLICY_BYTES, resource_put,   policy, "Replace it; it applies at once, also to connections that are there")
ROUTE(PATCH_POLICY,       PATCH,  "/v1/tenants/{tenant}/policy", TENANT, ADMIN, POLICY_BYTES, resource_patch, policy, "Change members of it")

ROUTE(LIST_DEVICES,       GET,    "/v1/tenants/{tenant}/devices",          TENANT, READ,   0,            resource_list,   device, "List devices")
ROUTE(GET_DEVICE,         GET,    "/v1/tenants/{tenant}/devices/{device}", TENANT, READ,   0,            device_get,      device, "Show one device, and whether it is connected")
ROUTE(PUT_DEVICE,         PUT,    "/v1/tenants/{tenant}/devices/{device}", TENANT, MANAGE, OBJECT_BYTES, resource_put,    device, "Create or replace a device")
ROUTE(PATCH_DEVICE,       PATCH,  "/v1/tenants/{tenant}/devices/{device}", TENANT, MANAGE, OBJECT_BYTES, resource_patch,  device, "Change members of a device; enabled false is the off switch")
ROUTE(DELETE_DEVICE,      DELETE, "/v1/tenants/{tenant}/devices/{device}", TENANT, MANAGE, 0,            resource_delete, device, "Delete a device")
ROUTE(LIST_RECENT,        GET,    "/v1/tenants/{tenant}/devices/{device}/recent", TENANT, READ, 0,       device_list_recent, device, "What happened to a device lately, and what to do about it")

ROUTE(CALL_METHOD,        POST,   "/v1/tenants/{tenant}/devices/{device}/methods/{method}", TENANT, COMMAND, LIMIT_OUTGOING_PAYLOAD_BYTES, method_call, method, "Call a connected device and wait for its answer")

ROUTE(LIST_COMMANDS,      GET,    "/v1/tenants/{tenant}/devices/{device}/commands",           TENANT, FOLLOW,  0,             resource_list,  command, "List the commands of a device")
ROUTE(POST_COMMAND,       POST,   "/v1/tenants/{tenant}/devices/{device}/commands",           TENANT, COMMAND, COMMAND_BYTES, command_post,   command, "Queue a command for a device, and wait for a state if asked to")
ROUTE(GET_COMMAND,        GET,    "/v1/tenants/{tenant}/devices/{device}/commands/{command}", TENANT, FOLLOW,  0,             command_get,    command, "Show one command with its payload and its reply")
ROUTE(DELETE_COMMAND,     DELETE, "/v1/tenants/{tenant}/devices/{device}/commands/{command}", TENANT, COMMAND, 0,             command_delete, command, "Cancel a command that is not being delivered")

ROUTE(GET_TWIN,           GET,    "/v1/tenants/{tenant}/devices/{device}/twin",         TENANT, READ,    0,          twin_get,         device, "Show the twin of a device: desired and reported state, and tags")
ROUTE(PATCH_TWIN,         PATCH,  "/v1/tenants/{tenant}/devices/{device}/twin",         TENANT, SHAPE,   TWIN_BYTES, twin_patch,       device, "Change desired state, tags or both")
ROUTE(PUT_DESIRED,        PUT,    "/v1/tenants/{tenant}/devices/{device}/twin/desired", TENANT, COMMAND, TWIN_BYTES, twin_put_desired, device, "Replace desired state as a whole")

ROUTE(LIST_JOBS,          GET,    "/v1/tenants/{tenant}/jobs",               TENANT, FOLLOW,  0,         resource_list, job,        "List jobs")
ROUTE(GET_JOB,            GET,    "/v1/tenants/{tenant}/jobs/{job}",         TENANT, FOLLOW,  0,         resource_get,  job,        "Show one job and how far it is")
ROUTE(PUT_JOB,            PUT,    "/v1/tenants/{tenant}/jobs/{job}",         TENANT, COMMAND, JOB_BYTES, job_put,       job,        "Start a job: one command, or one change of desired state, for many devices")
ROUTE(DELETE_JOB,         DELETE, "/v1/tenants/{tenant}/jobs/{job}",         TENANT, COMMAND, 0,         job_delete,    job,        "Forget a job that has come to its end")
ROUTE(ABORT_JOB,          POST,   "/v1/tenants/{tenant}/jobs/{job}/abort",   TENANT, COMMAND, 0,         job_abort,     job,        "Abort a job: no further devices, and no further deliveries")
ROUTE(LIST_JOB_RESULTS,   GET,    "/v1/tenants/{tenant}/jobs/{job}/results", TENANT, FOLLOW,  0,         resource_list, job_result, "List what came of each device of a job")

ROUTE(LIST_CREDENTIALS,   GET,    "/v1/tenants/{tenant}/devices/{device}/credentials",              TENANT, READ,   0,            resource_list,     credential, "List the credentials of a device")
ROUTE(POST_CREDENTIAL,    POST,   "/v1/tenants/{tenant}/devices/{device}/credentials",              TENANT, MANAGE, SECRET_BYTES, credential_post,   credential, "Add a credential; a generated secret is shown only in this answer")
ROUTE(GET_CREDENTIAL,     GET,    "/v1/tenants/{tenant}/devices/{device}/credentials/{credential}", TENANT, READ,   0,            resource_get,      credential, "Show one credential, without its secret")
ROUTE(PUT_CREDENTIAL,     PUT,    "/v1/tenants/{tenant}/devices/{device}/credentials/{credential}", TENANT, MANAGE, SECRET_BYTES, credential_put,    credential, "Create or replace a credential whose secret the client gives")
ROUTE(PATCH_CREDENTIAL,   PATCH,  "/v1/tenants/{tenant}/devices/{device}/credentials/{credential}", TENANT, MANAGE, SECRET_BYTES, resource_patch,    credential, "Change the validity of a credential")
ROUTE(DELETE_CREDENTIAL,  DELETE, "/v1/tenants/{tenant}/devices/{device}/credentials/{credential}", TENANT, MANAGE, 0,            resource_delete,   credential, "Remove a credential and end the connections made with it")

ROUTE(LIST_AUTHORITIES,   GET,    "/v1/tenants/{tenant}/certificate-authorities",             TENANT, READ,  0,            resource_list,   authority, "List certificate authorities")
ROUTE(GET_AUTHORITY,      GET,    "/v1/tenants/{tenant}/certificate-authorities/{authority}", TENANT, READ,  0,            resource_get,    authority, "Show one certificate authority")
ROUTE(PUT_AUTHORITY,      PUT,    "/v1/tenants/{tenant}/certificate-authorities/{authority}", TENANT, ADMIN, SECRET_BYTES, resource_put,    authority, "Create or replace a certificate authority")
ROUTE(PATCH_AUTHORITY,    PATCH,  "/v1/tenants/{tenant}/certificate-authorities/{authority}", TENANT, ADMIN, SECRET_BYTES, resource_patch,  authority, "Change a certificate authority")
ROUTE(DELETE_AUTHORITY,   DELETE, "/v1/tenants/{tenant}/certificate-authorities/{authority}", TENANT, ADMIN, 0,            resource_delete, authority, "Remove a certificate authority and end the connections it vouches for")

ROUTE(LIST_API_KEYS,      GET,    "/v1/tenants/{tenant}/api-keys",           TENANT, READ,  0,            resource_list,   api_key, "List the API keys of a tenant")
ROUTE(POST_API_KEY,       POST,   "/v1/tenants/{tenant}/api-keys",           TENANT, ADMIN, SECRET_BYTES, api_key_post,    api_key, "Make an API key; its secret is shown only in this answer")
ROUTE(GET_API_KEY,        GET,    "/v1/tenants/{tenant}/api-keys/{api_key}", TENANT, READ,  0,            resource_get,    api_key, "Show one API key, without its secret")
ROUTE(PATCH_API_KEY,      PATCH,  "/v1/tenants/{tenant}/api-keys/{api_key}", TENANT, ADMIN, SECRET_BYTES, resource_patch,  api_key, "Change roles, description or end of an API key")
ROUTE(DELETE_API_KEY,     DELETE, "/v1/tenants/{tenant}/api-keys/{api_key}", TENANT, ADMIN, 0,            resource_delete, api_key, "Revoke an API key")

ROUTE(LIST_ACCESS_POLICIES, GET,    "/v1/tenants/{tenant}/access-policies",                 TENANT, READ,  0,            resource_list,     access_policy, "List the shared access policies of a tenant")
ROUTE(GET_ACCESS_POLICY,    GET,    "/v1/tenants/{tenant}/access-policies/{access_policy}", TENANT, READ,  0,            resource_get,      access_policy, "Show one shared access policy, without its keys")
ROUTE(PUT_ACCESS_POLICY,    PUT,    "/v1/tenants/{tenant}/access-policies/{access_policy}", TENANT, ADMIN, SECRET_BYTES, access_policy_put, access_policy, "Make a shared access policy, whose keys are shown only in this answer; or change one")
ROUTE(PATCH_ACCESS_POLICY,  PATCH,  "/v1/tenants/{tenant}/access-policies/{access_policy}", TENANT, ADMIN, SECRET_BYTES, resource_patch,    access_policy, "Change the rights of a shared access policy")
ROUTE(DELETE_ACCESS_POLICY, DELETE, "/v1/tenants/{tenant}/access-policies/{access_policy}", TENANT, ADMIN, 0,            resource_delete,   access_policy, "Remove a shared access policy and end the connections made with it")

ROUTE(LIST_PLATFORM_KEYS,  GET,    "/v1/api-keys",           PLATFORM, READ,  0,            resource_list,   api_key, "List the API keys of the platform")
ROUTE(POST_PLATFORM_KEY,   POST,   "/v1/api-keys",           PLATFORM, ADMIN, SECRET_BYTES, api_key_post,    api_key, "Make an API key of the platform; its secret is shown only in this answer")
ROUTE(GET_PLATFORM_KEY,    GET,    "/v1/api-keys/{api_key}", PLATFORM, READ,  0,            resource_get,    api_key, "Show one API key of the platform")
ROUTE(PATCH_PLATFORM_KEY,  PATCH,  "/v1/api-keys/{api_key}", PLATFORM, ADMIN, SECRET_BYTES, resource_patch,  api_key, "Change an API key of the platform")
ROUTE(DELETE_PLATFORM_KEY, DELETE, "/v1/api-keys/{api_key}", PLATFORM, ADMIN, 0,            resource_delete, api_key, "Revoke an API key of the platform")

ROUTE(LIST_STREAMS,       GET,    "/v1/tenants/{tenant}/streams",                                TENANT, WATCH,   0,           stream_list,            stream, "List the streams of a tenant, which are its Kafka topics")
ROUTE(LIST_PARTITIONS,    GET,    "/v1/tenants/{tenant}/streams/{stream}/partitions",            TENANT, WATCH,   0,           stream_list_partitions, stream, "List the partitions of a stream")
ROUTE(LIST_GROUPS,        GET,    "/v1/tenants/{tenant}/consumer-groups",                        TENANT, WATCH,   0,           group_list_run,         group,  "List consumer groups and how far they are behind")
ROUTE(GET_GROUP,          GET,    "/v1/tenants/{tenant}/consumer-groups/{group}",                TENANT, WATCH,   0,           group_get,              group,  "Show one consumer group: members, committed offsets, lag")
ROUTE(RESET_GROUP,        POST,   "/v1/tenants/{tenant}/consumer-groups/{group}/reset-offsets", TENANT, CONSUME, RESET_BYTES, group_reset,            group,  "Set the committed offsets of a group without members")
ROUTE(DELETE_GROUP,       DELETE, "/v1/tenants/{tenant}/consumer-groups/{group}",                TENANT, CONSUME, 0,           group_delete_run,       group,  "Forget a group without members and its offsets")

OPERATION(HEALTHZ, GET, "/healthz", operations_healthz, "The process answers")
OPERATION(READYZ,  GET, "/readyz",  operations_readyz,  "Traffic may come here; otherwise why not")
OPERATION(METRICS, GET, "/metrics", operations_metrics, "Metrics in Prometheus text format")
/* clang-format on */
